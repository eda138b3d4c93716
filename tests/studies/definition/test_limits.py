"""Study files that ask for more than can be planned."""

from __future__ import annotations

import pytest

from securitynet.assessments.method_settings import make_method
from securitynet.assessments.policy import read_policy
from securitynet.errors import ConfigurationError
from securitynet.studies.definition import limits
from securitynet.studies.definition.file import parse_study
from securitynet.studies.definition.plan import expand

BASE = {"name": "large", "data": {"dataset": "digits"}}
TRAIN = {"architecture": "simple-cnn"}
GRID = {"name": "rmia", "grid": {"a": list(range(1000)), "b": list(range(1000)), "c": list(range(1000))}}

TOO_LARGE = {
    "seeds": {"seeds": list(range(200_000)), "train": [TRAIN], "attacks": ["loss"]},
    "seeds of an attack": {"train": [TRAIN], "attacks": [{"name": "loss", "seeds": list(range(200_000))}]},
    "seeds of training": {"train": [{**TRAIN, "seeds": list(range(200_000))}], "attacks": ["loss"]},
    "a grid": {"train": [TRAIN], "attacks": [GRID]},
    "targets": {
        "train": [{**TRAIN, "seeds": list(range(1000)), "epochs": list(range(1000)), "limit": list(range(9, 999))}],
        "attacks": ["loss"],
    },
    "trials": {"seeds": list(range(100_000)), "train": [TRAIN], "attacks": [{"name": "membership"}]},
}


@pytest.mark.parametrize("content", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_study_without_bound_is_refused(content, tmp_path):
    with pytest.raises(ConfigurationError, match=r"may have|at most"):
        expand(parse_study({**BASE, **content}), tmp_path)


def test_trials_are_counted_by_tags():
    tags = [frozenset({"a"}), frozenset({"a", "b"}), frozenset()]
    limits.check_trials(tags, [(frozenset(), 100_000), (frozenset({"a"}), 350_000)])  # 300,000 and 700,000
    with pytest.raises(ConfigurationError, match="1,000,002 trials"):
        limits.check_trials(tags, [(frozenset(), 100_000), (frozenset({"a"}), 350_001)])


def test_other_lists_without_bound(tmp_path):
    fprs = [n / 10_000 for n in range(1000)]
    with pytest.raises(ConfigurationError, match="fprs"):
        parse_study({**BASE, "train": [TRAIN], "attacks": ["loss"], "measures": {"fprs": fprs}})
    with pytest.raises(ConfigurationError, match="count"):
        make_method("attack", "lira", {"shadows": {"count": 10**12}})
    policy = tmp_path / "policy.toml"
    policy.write_text("".join(f'"a{n}" = {{ max = 0.5 }}\n' for n in range(20_000)))
    with pytest.raises(ConfigurationError, match="20,000 bounds"):
        read_policy(policy)
