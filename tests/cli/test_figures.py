"""`securitynet figures` and `findings`: what there is, what data lacks, files of each kind, errors before work."""

import json

import pytest

import securitynet.catalog


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """A small catalog in which stealing gets harder with accuracy."""
    folder = tmp_path_factory.mktemp("catalog")
    rows = ["source,name,dataset,family,year,measured:accuracy.test,measured:stealing.accuracy"]
    rows += [
        f"test,m{n},CIFAR-10,F{n % 7},{2015 + n % 4},{0.7 + n / 100},{0.9 - n / 120 + (n % 3) / 500}" for n in range(20)
    ]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    with securitynet.catalog.open(str(folder / "c.db")) as opened:
        report = opened.import_table(folder / "table.csv")
        assert report.entries.added == 20
    return folder / "c.db"


def test_list_says_what_is_lacking(run_cli, catalog):
    found = run_cli("figures", "list", "--from", "catalog", "--db", catalog, "--json")
    rows = {row["name"]: row for row in json.loads(found.stdout)}
    assert found.returncode == 0 and rows["securitynet-5"]["lacks"] == []
    assert rows["securitynet-13"]["lacks"] and rows["ml-doctor-2"]["lacks"]
    assert {f"securitynet-{n}" for n in (*range(1, 18), 19, 20, 21)} <= rows.keys()
    assert {f"ml-doctor-{n}" for n in (2, 3, 5, 6, 7, 8, 9, 10)} <= rows.keys()


def test_draw_writes_the_file_and_prints_the_caption(run_cli, catalog, tmp_path):
    out = tmp_path / "stealing.svg"
    found = run_cli("figures", "draw", "securitynet-5", "--db", catalog, "--out", out)
    assert found.returncode == 0, found.stderr
    assert out.read_text().startswith("<svg")
    assert "CIFAR-10 −0.9" in found.stdout and "n = 20" in found.stdout


def test_where_takes_some_models(run_cli, catalog, tmp_path):
    out = tmp_path / "figure.csv"
    found = run_cli("figures", "draw", "securitynet-5", "--db", catalog, "--out", out, "--where", "year=2015,2016")
    assert found.returncode == 0, found.stderr
    assert len(out.read_text().splitlines()) == 11
    run_cli("figures", "draw", "securitynet-5", "--db", catalog, "--out", tmp_path / "folder", "--suffix", "csv")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["securitynet-5.csv"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("securitynet-5", "--out", "x.gif"), "suffix of a known format"),
        (("all", "--out", "figures", "--suffix", "gif"), "There is no format 'gif'"),
        (("securitynet-5", "--out", "x.svg", "--suffix", "svg"), "need a folder"),
        (("securitynet-14", "--out", "x.svg"), "needs data that no model here has"),
        (("securitynet-55", "--out", "x.svg"), "Did you mean"),
        (("securitynet-5", "--out", "x.svg", "--where", "colour=red"), "no column"),
        (("securitynet-5", "--out", "x.svg", "--from", "nowhere"), "neither"),
    ],
)
def test_errors_are_clear(run_cli, catalog, tmp_path, arguments, said):
    found = run_cli("figures", "draw", *arguments, "--db", catalog)
    assert found.returncode == 1 and said in found.stderr + found.stdout


def test_findings_judge_the_catalog_and_a_papers_tables_together(run_cli, catalog):
    found = run_cli("findings", "--db", catalog, "--from", "catalog", "--from", "ml-doctor", "--json")
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    claims = {row["name"]: row for row in report["claims"]}
    assert claims["stealing-falls-with-accuracy"]["status"] == "supported"
    pooled = claims["membership-against-stealing"]
    assert pooled["estimand"] == "pooled over 4 datasets" and pooled["value"] == pytest.approx(-0.878, abs=5e-4)
    (within,) = pooled["beside"]
    assert within["estimand"] == "within 4 datasets" and within["value"] == pytest.approx(-0.074, abs=5e-4)
    numbers = {row["name"]: row for row in report["numbers"]}
    assert numbers["stealing-cifar10"]["agreement"] == "differs" and numbers["stealing-cifar10"]["n"] == 20
    assert numbers["membership-stealing"]["agreement"] == "agrees"
    assert report["numbers"][0]["agreement"] == "differs"
    text = run_cli("findings", "--db", catalog, "--where", "dataset=CIFAR-10").stdout
    assert "Supported (1)" in text and "Not tested" in text and "--untested lists them" in text
    assert "Differs from the paper: Stealing × the target's accuracy, CIFAR-10: −0.693 in the paper" in text
