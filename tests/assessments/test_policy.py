"""Policies: read, judged, and refused when they make no sense."""

import pytest

from securitynet.assessments.policy import judge_bounds, read_grade_bounds, read_policy
from securitynet.errors import PolicyError
from securitynet.records import Direction, Measurement

AUC = Measurement(
    name="membership.modified-entropy.auc", value=0.52, low=0.50, high=0.56, n=9, direction=Direction.LOWER, method="m"
)
UNRESOLVED = Measurement(
    name="m.tpr@fpr=0.001", value=None, n=9, direction=Direction.LOWER, method="none", note="not resolvable"
)


def policy(tmp_path, text):
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return read_policy(path)


def test_names_may_be_quoted_or_nested(tmp_path):
    quoted = policy(tmp_path, '"membership.modified-entropy.tpr@fpr=0.001" = { max = 0.02 }')
    nested = policy(tmp_path, '[membership.modified-entropy]\n"tpr@fpr=0.001" = { max = 0.02 }')
    assert quoted == nested and set(quoted) == {"membership.modified-entropy.tpr@fpr=0.001"}


def test_bounds_on_value_and_on_interval(tmp_path):
    name = '"membership.modified-entropy.auc"'
    assert judge_bounds(policy(tmp_path, f"{name} = {{ max = 0.55 }}"), [AUC]).met
    strict = judge_bounds(policy(tmp_path, f'{name} = {{ max = 0.55, on = "interval" }}'), [AUC])
    assert not strict.met and "0.56 is above 0.55" in strict.violations[0].why
    low = judge_bounds(policy(tmp_path, f"{name} = {{ min = 0.53 }}"), [AUC])
    assert not low.met and "below" in low.violations[0].why


def test_what_is_not_measured_or_not_resolvable_is_not_met(tmp_path):
    outcome = judge_bounds(
        policy(tmp_path, '"other" = { max = 1 }\n"m.tpr@fpr=0.001" = { max = 1 }'), [AUC, UNRESOLVED]
    )
    assert [violation.why for violation in outcome.violations] == ["not measured", "not resolvable"]


def test_a_misspelt_measurement_is_not_met_and_the_right_name_is_suggested(tmp_path):
    outcome = judge_bounds(policy(tmp_path, '"membership.modified-entrop.auc" = { max = 1 }'), [AUC, UNRESOLVED])
    assert outcome.violations[0].why == "not measured; did you mean membership.modified-entropy.auc?"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no bounds"),
        ("x = 3", "not understood"),
        ("x = { max = 'high' }", "not understood"),
        ("x = { max = 1, typo = 2 }", "not understood"),
        ("x = { min = 2, max = 1 }", "min is above max"),
        ("x = { max = nan }", "max: .*finite"),
        ("x = { max = true }", "max: .*number"),
        ("x = { mx = 0.2 }", "'x.mx' is not understood"),
        ("x = {", "TOML"),
    ],
)
def test_nonsense_is_refused(tmp_path, text, message):
    with pytest.raises(PolicyError, match=message):
        policy(tmp_path, text)


def test_a_policy_says_where_grades_begin(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('[grades]\n"membership.auc" = { moderate = 0.55, high = 1 }\n[grades.evasion]\n'
                    "success = { moderate = 0.2, high = 0.6 }\n")  # fmt: skip
    table = read_grade_bounds(path)
    assert table["membership.auc"].high == 1.0 and table["evasion.success"].moderate == 0.2
    assert read_policy(path) == {}
    for text in (
        '[grades]\n"membership.recall" = { moderate = 0.5, high = 0.6 }',
        '[grades]\n"membership.auc" = { moderate = 0.9, high = 0.6 }',
        '[grades]\n"membership.auc" = 0.5',
        "grades = 3",
    ):
        path.write_text(text)
        with pytest.raises(PolicyError):
            read_grade_bounds(path)
