"""Scripts that were written for earlier names of the metrics go on working."""

import numpy as np
import pytest

from securitynet.metrics import epsilon, membership, paired, rates, roc


def test_a_former_name_is_the_function_and_says_the_present_one():
    scores = np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.5])
    with pytest.warns(DeprecationWarning, match="measure_auc"):
        former = roc.auc
    assert former(*scores) == roc.measure_auc(*scores)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = roc.nothing


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "module, names",
    [
        (roc, "auc_value auc_limits curve tpr_at_fpr tpr_limits balanced_accuracy best_threshold lowest_resolved"),
        (rates, "clopper_pearson combine difference bounded_mean beta_quantile ratio percentile_interval"),
        (membership, "measure advantage"),
        (paired, "interval limits difference"),
        (epsilon, "bound best_threshold lower_bound"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_former_name_leads_to_a_function(module, names):
    assert all(callable(getattr(module, name)) for name in names.split())
