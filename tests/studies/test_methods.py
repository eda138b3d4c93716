"""Settings of attacks from the command line."""

import pytest

from securitynet.assessments.method_settings import make_method, parse_method_settings
from securitynet.errors import ConfigurationError, UnknownName


def test_settings_by_short_and_full_name_nested_and_typed():
    parsed = parse_method_settings(
        ["lira.shadows.count=64", "membership.modified-entropy.per_class=true", "lira.variance=fixed"]
    )
    assert parsed == {
        "membership.lira": {"shadows": {"count": 64}, "variance": "fixed"},
        "membership.modified-entropy": {"per_class": True},
    }
    assert make_method("attack", "membership.modified-entropy", {"per_class": True}).per_class


@pytest.mark.parametrize("text", ["lira", "lira=3", "lira.=3", "=3", "lira.shadows"])
def test_nonsense_is_refused(text):
    with pytest.raises(ConfigurationError, match="not understood"):
        parse_method_settings([text])


def test_unknown_attack_and_unknown_field():
    with pytest.raises(UnknownName):
        parse_method_settings(["lyra.count=3"])
    with pytest.raises(ConfigurationError, match="per_clas") as raised:
        make_method("attack", "membership.modified-entropy", {"per_clas": True})
    assert "per_class" in raised.value.hint


def test_one_value_and_a_field_of_the_same_setting_exclude_each_other():
    with pytest.raises(ConfigurationError, match="another setting gives one value"):
        parse_method_settings(["lira.shadows.recipe=fast", "lira.shadows.recipe.epochs=3"])
