"""The examples run as they are, on digits, without a network."""

import ast
import json
import re
import runpy
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def read_aucs(printed):
    return [float(value) for value in re.findall(r"AUC (\d\.\d+)", printed)]


def test_assess_digits_writes_its_report(tmp_path, monkeypatch, capsys):
    printed = run("assess_digits.py", monkeypatch, capsys, tmp_path)
    assert len(read_aucs(printed)) == 2 and re.search(r"test accuracy: 0\.\d+", printed)
    assert (tmp_path / "report" / "report.html").is_file() and (tmp_path / "model.json").is_file()


def test_compare_defenses_shows_that_hiding_outputs_helps(monkeypatch, capsys):
    printed = run("compare_defenses.py", monkeypatch, capsys)
    none, rounded, _ = read_aucs(printed)
    assert none > 0.5 and rounded < none + 0.05


def test_own_attack_works_where_there_is_something_to_find_and_only_there(monkeypatch, capsys):
    overfitted, null = read_aucs(run("own_attack.py", monkeypatch, capsys))
    assert overfitted > 0.7 and abs(null - 0.5) < 0.06


def test_the_notebook_runs_from_top_to_bottom(capsys):
    notebook = json.loads((EXAMPLES / "exposed_records.ipynb").read_text(encoding="utf-8"))
    names = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "outputs are not kept in the repository"
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "of the 20 highest scores belong to members" in printed
    assert 0.4 < names["measurements"]["auc"].value < 1


def test_the_notebook_on_an_own_model_leads_to_the_exposed_records(tmp_path, capsys):
    from securitynet.torchvision_cure import import_torchvision

    import_torchvision("torchvision.transforms")  # beside a build of torch without CUDA the plain import fails
    notebook = json.loads((EXAMPLES / "own_model.ipynb").read_text(encoding="utf-8"))
    names = {"__name__": "notebook"}
    shown = []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "outputs are not kept in the repository"
            *statements, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(statements, []), f"cell {number}", "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names))
            else:
                exec(compile(ast.Module([last], []), f"cell {number}", "exec"), names)
    result, exposed = names["result"], names["exposed"]
    assert any("<table>" in getattr(value, "_repr_html_", str)() for value in shown if value is result)
    assert result["membership.loss.auc"] > 0.6
    assert exposed["share:membership.loss"].iloc[0] < 0.05 and set(exposed["file"].str[:6]) == {"train/"}
    assert names["model"].training, "the model is left as it was"
    assert "members score higher than 95% of the non-members" in capsys.readouterr().out
