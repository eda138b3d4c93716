"""Recorded outputs are enough for attacks that need outputs only; the others say what they lack."""

import numpy as np
import pytest

from securitynet.attacks import ATTACKS
from securitynet.datasets import splits
from securitynet.errors import SecurityNetError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import roc
from securitynet.models.targets.backends.recorded import RecordedBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access

OUTPUTS_SUFFICE = ("correctness", "loss", "confidence", "entropy", "modified-entropy", "quantile-regression")
NEED_MORE = ("gradient-norm", "lira", "rmia", "label-only-boundary", "augmentation-agreement")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Answers to 400 records of 4 classes, members' surer than others', one class absent among members."""
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 4
    member = (np.arange(400) // 4) % 2 == 0
    member[labels == 3] = False
    logits = generator.normal(size=(400, 4))
    logits[np.arange(400), labels] += 2 + 2.5 * member
    path = tmp_path_factory.mktemp("recorded") / "recorded.npz"
    np.savez(path, logits=logits.astype(np.float32), labels=labels, member=member)
    backend = RecordedBackend(path, reference="outputs:recorded.npz")
    dataset = backend.dataset()
    return Target(backend, head=backend.head, access=Access.BLACK_BOX), TrialData(dataset, splits.public(dataset))


@pytest.mark.parametrize("name", OUTPUTS_SUFFICE)
def test_outputs_suffice(name, recorded, tmp_path):
    attack = ATTACKS.get(name)()
    output = attack(*recorded, Context(cache=tmp_path), attack.threat_models[0])
    measures = {m.name: m for m in output.measurements(level=0.95, fprs=(0.1, 0.0001), seed=0)}
    assert measures["auc"].low > 0.5
    assert measures["tpr@fpr=0.0001"].value is None and "not resolvable" in measures["tpr@fpr=0.0001"].note
    absent = [s for s in output.breakdown() if s.by == "class" and s.name == "3"]
    assert absent[0].members == 0 and absent[0].auc.value is None


@pytest.mark.parametrize("name", NEED_MORE)
def test_others_say_what_they_lack(name, recorded, tmp_path):
    attack = ATTACKS.get(name)()
    with pytest.raises(SecurityNetError, match=r"recorded outputs|recording|white-box"):
        attack(*recorded, Context(cache=tmp_path), attack.threat_models[0])


def test_thresholds_by_class_where_a_class_has_no_members(recorded, tmp_path):
    attack = ATTACKS.get("loss")(per_class=True)
    output = attack(*recorded, Context(cache=tmp_path), attack.threat_models[0])
    known = ~output.held_out
    common = roc.find_best_threshold(output.scores[known & output.is_member], output.scores[known & ~output.is_member])
    assert (output.threshold[output.labels == 3] == common).all() and len(np.unique(output.threshold)) == 4
