"""The example attack of the docs works as written."""

import re
from pathlib import Path

import numpy as np

from securitynet.methods.context import Context
from securitynet.methods.data import TrialData

DOCS = Path(__file__).parents[1] / "docs"


def test_the_attack_of_the_guide_to_extending(overfitted, tmp_path):
    target, splits, dataset = overfitted
    (example,) = re.findall(
        r"```python\n(# src/securitynet/attacks.*?)```", (DOCS / "extend.md").read_text(), re.DOTALL
    )
    names: dict = {}
    exec(compile(example, "extend.md", "exec"), names)
    attack = names["Margin"]()
    output = attack(target, TrialData(dataset, splits), Context(cache=tmp_path), attack.threat_models[0])
    assert np.isfinite(output.scores).all()
    auc = next(m for m in output.measurements(level=0.95, fprs=(0.1,), seed=0) if m.name == "auc")
    assert auc.low > 0.6
