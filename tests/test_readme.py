"""The README's Python example works as written, and its commands exist."""

import re
import sys
import types
from pathlib import Path

import tutorial

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_example_works_as_written(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) == 7
    project = types.ModuleType("my_project")
    project.train = tutorial.Digits(range(120), tutorial.make_transform())
    project.test = tutorial.Digits(range(200, 400), tutorial.make_transform())
    project.model = tutorial.train_network(project.train)
    monkeypatch.setitem(sys.modules, "my_project", project)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"accuracy on new images: 0\.\d+", printed) and "inference: 0." in printed
    assert "train/" in printed
    assert (tmp_path / "report" / "report.html").is_file()


def test_make_targets_and_pictures_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_ci_calls_the_readmes_test_command():
    assert re.search(r"^make test$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
