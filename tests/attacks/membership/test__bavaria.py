"""BaVarIA on arrays: the conjugate update by numerical integration, the prior from known truths, limits, null cases."""

import numpy as np
import pytest
from scipy import stats

from securitynet.attacks.membership import _bavaria, _lira
from securitynet.attacks.membership._bavaria import MOST_DEGREES, Posterior, Prior, fit_prior, update
from securitynet.errors import ConfigurationError, TargetError
from securitynet.metrics import roc


def draw(seed=0, records=4000, models=8, degrees=6.0, gap=1.0, between=4.0):
    """Signals of records whose variances follow a scaled inverse χ² distribution; ``degrees`` infinite: one for all."""
    generator = np.random.default_rng(seed)
    variances = degrees / generator.chisquare(degrees, records) if np.isfinite(degrees) else np.ones(records)
    centre = generator.normal(0, between, records)
    included = generator.random((models, records)).argsort(axis=0) < models // 2
    is_member = np.arange(records) % 2 == 0

    def signals(inside):
        return centre + gap * inside + np.sqrt(variances) * generator.normal(size=np.shape(inside))

    return signals(is_member), signals(included), included, is_member


def tpr(scores, is_member, fpr=0.01):
    others = np.sort(scores[~is_member])[::-1]
    return (scores[is_member] > others[round(fpr * len(others))]).mean()


@pytest.mark.parametrize("signals", [[1.0, 2.5, 2.0], [4.0]])
def test_the_predictive_density_is_the_integral_over_mean_and_variance(signals):
    prior = Prior(mean=0.5, weight=0.4, degrees=5.0, variance=1.3)
    shadows = np.array(signals)[:, None]
    posterior = update(prior, shadows, np.ones_like(shadows, dtype=bool))
    new = 2.2
    means, variances = np.linspace(-25, 25, 2001)[:, None], np.geomspace(1e-2, 1e3, 1500)[None, :]
    likelihood = np.prod([stats.norm.pdf(signal, means, np.sqrt(variances)) for signal in signals], axis=0)
    density = stats.norm.pdf(means, prior.mean, np.sqrt(variances / prior.weight))
    density = density * stats.invgamma.pdf(variances, prior.degrees / 2, scale=prior.degrees * prior.variance / 2)
    weights = likelihood * density * variances  # the grid of variances is geometric
    expected = (weights * stats.norm.pdf(new, means, np.sqrt(variances))).sum() / weights.sum()
    assert np.exp(posterior.log_density(np.array([new]), "t")[0]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("degrees", [4.0, 20.0])
def test_the_prior_is_recovered_from_records(degrees):
    _, shadows, included, _ = draw(degrees=degrees, records=20_000, models=12)
    prior = fit_prior(shadows, ~included)
    assert prior.degrees == pytest.approx(degrees, rel=0.15)
    assert prior.variance == pytest.approx(1.0, rel=0.05)
    mean_variance = degrees / (degrees - 2)
    assert prior.weight == pytest.approx(mean_variance / 16, rel=0.15)  # between = 4: the variance of the means is 16


def test_equal_variances_make_it_lira_with_a_fixed_variance():
    observed, shadows, included, _ = draw(degrees=np.inf, models=16)
    prior = fit_prior(shadows, included)
    assert prior.degrees > 100 and prior.variance == pytest.approx(1.0, rel=0.05)
    scores = _bavaria.score_online(observed, shadows, included, predictive="normal")
    fixed = _lira.compute_online_ratio(observed, shadows, included)
    assert stats.spearmanr(scores, fixed).statistic > 0.99
    same = np.tile([[1.0], [2.0]], (3, 5))
    assert fit_prior(same, np.ones_like(same, dtype=bool)).degrees == MOST_DEGREES


@pytest.mark.parametrize("models", [4, 8, 16, 64])
def test_it_is_no_worse_than_lira_with_either_variance(models):
    """Where variances differ between records, on the same shadow models; with few of them it is better than both."""
    observed, shadows, included, is_member = draw(models=models, degrees=3.0, gap=2.0, records=12_000)
    ours = tpr(_bavaria.score_online(observed, shadows, included), is_member)
    theirs = [
        tpr(_lira.compute_online_ratio(observed, shadows, included, variance=kind), is_member)
        for kind in ("fixed", "per-record")
    ]
    assert ours > max(theirs) - 0.03  # three standard errors
    if models <= 8:
        assert ours > max(theirs) + 0.01


@pytest.mark.parametrize("predictive", ["t", "normal"])
def test_nothing_is_found_where_there_is_nothing(predictive):
    observed, shadows, included, is_member = draw(gap=0.0, models=6)
    nothing = np.zeros_like(included)
    for scores in (
        _bavaria.score_online(observed, shadows, included, predictive=predictive),
        _bavaria.score_offline(observed, shadows, nothing, predictive=predictive),
    ):
        measured = roc.measure_auc(scores[is_member], scores[~is_member], level=0.99)
        assert measured.low <= 0.5 <= measured.high


@pytest.mark.parametrize("predictive", ["t", "normal"])
def test_directions_missing_models_and_limits(predictive):
    observed, shadows, included, _ = draw(records=300)
    included[:, 0], included[:, 1] = True, False
    online = _bavaria.score_online(observed, shadows, included, predictive=predictive)
    assert np.isfinite(online).all()
    offline = _bavaria.score_offline(observed, shadows, included, predictive=predictive)
    assert np.isnan(offline[0]) and np.isfinite(offline[1:]).all()
    alike = Posterior(np.zeros(300), np.ones(300), np.full(300, 3.0), np.full(300, 7.0))
    far = alike.log_tail(np.geomspace(1, 1e9, 300), predictive)
    assert (np.diff(far) < 0).all()  # far in the tail the order is kept


def test_the_tail_of_t_continues_where_its_logarithm_underflows():
    values, degrees = np.array([5.0, 1e30, 1e40]), np.array([3.0, 12.0, 12.0])
    found = _bavaria._log_t_tail(values, degrees)
    assert found[0] == pytest.approx(np.log(stats.t.sf(5, 3)))
    assert found[1] - found[2] == pytest.approx(12 * np.log(1e10))


def test_what_can_not_be_computed_is_refused():
    observed, shadows, included, _ = draw(records=10, models=2)
    with pytest.raises(ConfigurationError, match="variance"):
        _bavaria.score_online(observed, shadows, included)
    with pytest.raises(TargetError, match="not finite"):
        _bavaria.score_online(np.full(10, np.inf), shadows, included)
