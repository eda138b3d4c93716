"""Tests of `securitynet.assessments.known_methods`."""

from __future__ import annotations

import pytest

from securitynet.assessments import known_methods
from securitynet.assessments.method_settings import REGISTRIES, make_method


def test_the_file_is_what_the_classes_say():
    assert known_methods.FILE.read_text(encoding="utf-8") == known_methods.write_known_methods(), (
        "write it again: python -c 'from securitynet.assessments import known_methods as k; "
        'k.FILE.write_text(k.write_known_methods(), encoding="utf-8")\''
    )


def test_settings_of_a_method_by_its_full_or_short_name():
    lira = make_method("attack", "membership.lira", {}).model_dump(mode="json")
    assert known_methods.find_default_settings("attack", "membership.lira") == lira
    assert known_methods.find_default_settings("attack", "lira") == lira
    assert known_methods.find_default_settings("defense", "dp-sgd")


@pytest.mark.parametrize(("kind", "name"), [("attack", "membership.unheard"), ("detector", "lira")])
def test_what_is_not_installed_has_no_settings_and_no_pictures(kind, name):
    assert known_methods.find_default_settings(kind, name) is None
    assert not known_methods.has_pictures(kind, name)


def test_methods_with_pictures():
    assert known_methods.has_pictures("detector", "neural-cleanse")
    assert not known_methods.has_pictures("attack", "membership.loss")


def test_a_plug_in_is_asked_itself(monkeypatch):
    """The file knows nothing about it, even if it bears the name of one that was once this package's."""
    entries = {**REGISTRIES["attack"].entries}
    lira = entries["membership.lira"]
    plug_in = type(lira)("membership.lira", "securitynet.attacks.membership.loss:Loss", "")
    monkeypatch.setitem(REGISTRIES["attack"].__dict__, "entries", {**entries, "membership.lira": plug_in})
    monkeypatch.setattr(known_methods, "_is_own", lambda kind, name: False)
    loss = make_method("attack", "membership.loss", {}).model_dump(mode="json")
    assert known_methods.find_default_settings("attack", "membership.lira") == loss
