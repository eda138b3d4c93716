"""Leaderboards of all attacks: published and reproduced values of each model, side by side."""

from __future__ import annotations

import json

import pytest

from securitynet.catalog.attack_board import AttackCell, is_better_high, list_attack_boards, make_attack_board
from securitynet.catalog.catalog import Catalog
from securitynet.catalog.store import Measured
from securitynet.errors import ConfigurationError

LOSS, STOLEN, PGD = "membership.loss.auc", "stealing.agreement", "evasion.pgd.robust-accuracy@epsilon=0.03"


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    made = Catalog(f"sqlite:///{tmp_path}/board.sqlite")
    for key, published, trials in (
        ("a:one", {LOSS: 0.6, STOLEN: 0.9, "accuracy.test": 0.8}, {LOSS: 0.7, PGD: 0.2}),
        ("b:two", {LOSS: 0.55}, {PGD: 0.3, "membership.loss.blind-auc": 0.5, "membership.loss.tpr@fpr=0.01": 0.1}),
        ("c:clean", {"accuracy.test": 0.9}, {}),
    ):
        entry = made.add({"key": key, "name": key[2:], "source": key[0], "dataset": "CIFAR-10"})
        values = [Measured(name, value, "published", "https://x.example") for name, value in published.items()]
        made.record(entry.id, values + [Measured(name, value, "trial", "t1") for name, value in trials.items()])
    return made


def test_published_and_own_values_stand_side_by_side(catalog: Catalog) -> None:
    board = make_attack_board(catalog, "cifar10")
    assert set(board.measures) == {LOSS, STOLEN, PGD} and len(board.rows) == 2
    one = next(row for row in board.rows if row.label == "one")
    assert one.cells == {LOSS: AttackCell(0.6, 0.7), STOLEN: AttackCell(0.9, None), PGD: AttackCell(None, 0.2)}
    assert one.clean == 0.8
    assert list_attack_boards(catalog) == [("CIFAR-10", 2)]


def test_the_most_resistant_model_comes_first_in_either_direction(catalog: Catalog) -> None:
    assert [row.label for row in make_attack_board(catalog, "CIFAR-10", LOSS).rows] == ["two", "one"]
    assert [row.label for row in make_attack_board(catalog, "CIFAR-10", PGD).rows] == ["two", "one"]
    assert [row.label for row in make_attack_board(catalog, "CIFAR-10", STOLEN).rows] == ["one", "two"], "unknown last"
    entry = catalog.get("b:two")
    catalog.record(entry.id, [Measured(PGD, 0.1, "trial", "t2")])
    board = make_attack_board(catalog, "CIFAR-10", PGD)
    assert [row.label for row in board.rows] == ["one", "two"], "another result lowers the number"
    assert board.rows[1].cells[PGD].reproduced == 0.1


def test_what_is_no_attack_is_left_out_and_wrong_names_are_explained(catalog: Catalog) -> None:
    assert is_better_high(PGD) is True and is_better_high(LOSS) is False
    for name in ("membership.loss.blind-auc", "stealing.x.constant-agreement", "accuracy.test", "membership.blind.auc"):
        assert is_better_high(name) is None
    with pytest.raises(ConfigurationError, match="No model of CIFAR-10"):
        make_attack_board(catalog, "CIFAR-10", "x")
    assert make_attack_board(catalog, "MNIST").rows == ()


def test_the_command_and_the_page_show_it(catalog: Catalog, tmp_path, capsys, monkeypatch) -> None:
    import sys

    from fastapi.testclient import TestClient

    from securitynet.cli.main import main
    from securitynet.web.app import create_app

    url = f"sqlite:///{tmp_path}/board.sqlite"
    monkeypatch.setattr(
        sys, "argv", ["securitynet", "catalog", "leaderboard", "CIFAR-10", "--attacks", "--json", "--db", url]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (None, 0)
    assert [row["label"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["two", "one"]
    with TestClient(create_app(url), base_url="http://127.0.0.1:8421") as client:
        text = client.get(f"/leaderboard/attacks?dataset=CIFAR-10&sort={PGD}").text
        assert "0.600" in text and "<strong>0.700</strong>" in text and text.index(">two<") < text.index(">one<")
        assert "CIFAR-10 · all attacks" in client.get("/leaderboard").text
        assert client.get("/leaderboard/attacks?dataset=MNIST").status_code == 200
