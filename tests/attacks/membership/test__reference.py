"""LiRA, RMIA and calibration on arrays: known optimal attacks, definitions evaluated one by one, directions, limits."""

import numpy as np
import pytest
from scipy import stats

from securitynet.attacks.membership import _lira, _rmia
from securitynet.attacks.membership._evidence import LOW_FPR, SignalEvidence, make_stand_ins
from securitynet.attacks.membership.lira import LiRA
from securitynet.attacks.membership.lira_offline import LiRAOffline
from securitynet.attacks.membership.reference_calibration import calibrate_signal
from securitynet.attacks.membership.rmia import RMIA
from securitynet.attacks.membership.rmia_offline import A_VALUES, RMIAOffline
from securitynet.errors import ConfigurationError, TargetError
from securitynet.metrics import roc


def gaussian(seed=0, records=3000, shadows=128, gap=1.0, spread=1.0, between=5.0, spreads=None):
    """Normal signals whose mean differs much between records, and by ``gap`` between members and non-members."""
    generator = np.random.default_rng(seed)
    centre = generator.normal(0, between, records)
    spread = spread if spreads is None else generator.choice(spreads, records)
    included = generator.random((shadows, records)).argsort(axis=0) < shadows // 2
    is_member = np.arange(records) % 2 == 0

    def draw(inside):
        return centre + gap * inside + spread * generator.normal(size=np.shape(inside))

    return draw(is_member), draw(included), included, is_member


def auc(scores, is_member):
    return roc.measure_auc(scores[is_member], scores[~is_member])


@pytest.mark.parametrize("variance", ["fixed", "per-record"])
@pytest.mark.parametrize("gap", [0.5, 1.0, 2.0])
def test_lira_reaches_the_auc_of_the_optimal_attack(variance, gap):
    observed, shadows, included, is_member = gaussian(gap=gap)
    optimal = stats.norm.cdf(gap / np.sqrt(2))  # two normals, one standard deviation, gap apart
    measured = auc(_lira.compute_online_ratio(observed, shadows, included, variance=variance), is_member)
    assert measured.low <= optimal <= measured.high
    assert auc(observed, is_member).high < optimal - 0.02, "without shadow models the spread between records hides it"


def test_offline_lira_reaches_it_too_where_the_gap_is_the_same_for_all():
    observed, shadows, included, is_member = gaussian(gap=1.0)
    nothing = np.zeros_like(included)
    outside = np.where(included, shadows - 1.0, shadows)  # as if no shadow model had been trained on any record
    measured = auc(_lira.compute_offline_score(observed, outside, nothing), is_member)
    assert measured.low <= stats.norm.cdf(1 / np.sqrt(2)) <= measured.high


def test_per_record_variance_pays_where_spreads_differ():
    observed, shadows, included, is_member = gaussian(gap=1.0, spreads=(0.25, 4.0))
    fixed, own = (
        auc(_lira.compute_online_ratio(observed, shadows, included, variance=v), is_member)
        for v in ("fixed", "per-record")
    )
    # Half of the records are separated with gap/spread 4, half with 1/4; mixing ranks between them costs a little.
    assert own.low > fixed.value
    scores = _lira.compute_online_ratio(observed, shadows, included, variance="per-record")
    assert (scores > 0).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("seed", [0, 1])
def test_rmia_reaches_the_auc_of_the_optimal_attack(seed):
    # Log-posteriors far below 0: a record's own level cancels in p / mean p, what is left is the normal shift.
    observed, shadows, included, is_member = gaussian(seed, gap=1.0, spread=0.8, between=4.0)
    observed, shadows = observed - 60, shadows - 60
    optimal = stats.norm.cdf(1.0 / (0.8 * np.sqrt(2)))
    population = ~is_member & (np.arange(len(is_member)) % 4 == 1)
    judged = ~population
    ratios = _rmia.log_ratio_online(observed, shadows, included)
    online = auc(_rmia.score_population_share(ratios[judged], ratios[population]), is_member[judged])
    assert online.low <= optimal <= online.high
    offline = _rmia.log_ratio_offline(observed, shadows, included, 1.0)
    offline = auc(_rmia.score_population_share(offline[judged], offline[population]), is_member[judged])
    assert offline.low <= optimal <= offline.high


@pytest.mark.parametrize("gamma", [1.0, 2.0, 1.3])
def test_rmia_by_sorting_is_the_comparison_of_all_pairs(gamma):
    generator = np.random.default_rng(0)
    x, z = np.exp(generator.normal(size=200)).round(2), np.exp(generator.normal(size=150)).round(2)
    pairs = (x[:, None] / z[None, :]) >= gamma
    exact = np.abs(x[:, None] / z[None, :] - gamma) < 1e-9  # a pair on the edge may fall to either side by rounding
    found = _rmia.count_exceeded(np.log(x), np.log(z), gamma)
    assert (np.abs(found - pairs.sum(axis=1)) <= exact.sum(axis=1)).all()
    np.testing.assert_allclose(_rmia.score_population_share(np.log(x), np.log(z), gamma, break_ties=False), found / 150)


def test_breaking_ties_refines_the_order_of_the_counts():
    generator = np.random.default_rng(1)
    ratios, population = generator.normal(size=500), generator.normal(size=20)
    beaten, scores = _rmia.count_exceeded(ratios, population), _rmia.score_population_share(ratios, population)
    order = np.argsort(scores)
    assert (np.diff(beaten[order]) >= 0).all() and len(np.unique(scores)) == 500 > len(np.unique(beaten))
    assert scores.min() >= 0 and scores.max() <= 1


def test_lira_is_its_definition_record_by_record():
    observed, shadows, included, _ = gaussian(records=30, shadows=12, spreads=(0.5, 2.0))
    inside = [shadows[included[:, n], n] for n in range(30)]
    outside = [shadows[~included[:, n], n] for n in range(30)]

    def pooled(groups):  # centred per record first, one degree of freedom lost to each
        return np.sqrt(sum(((g - g.mean()) ** 2).sum() for g in groups) / sum(len(g) - 1 for g in groups))

    for variance in ("fixed", "per-record"):
        expected = [
            stats.norm.logpdf(observed[n], a.mean(), pooled(inside) if variance == "fixed" else a.std(ddof=1))
            - stats.norm.logpdf(observed[n], b.mean(), pooled(outside) if variance == "fixed" else b.std(ddof=1))
            for n, (a, b) in enumerate(zip(inside, outside, strict=True))
        ]
        np.testing.assert_allclose(_lira.compute_online_ratio(observed, shadows, included, variance=variance), expected)
        one_sided = [
            (observed[n] - b.mean()) / (pooled(outside) if variance == "fixed" else b.std(ddof=1))
            for n, b in enumerate(outside)
        ]
        np.testing.assert_allclose(
            _lira.compute_offline_score(observed, shadows, included, variance=variance), one_sided
        )


def test_spread_between_records_is_no_part_of_the_fixed_variance():
    _, shadows, included, _ = gaussian(between=100.0, spread=1.0, shadows=16)
    assert _lira.fit_normals(shadows, included, "fixed").spread[0] == pytest.approx(1.0, rel=0.05)


def test_rmia_ratios_are_their_definitions():
    generator = np.random.default_rng(2)
    p, models = generator.random(40), generator.random((10, 40))
    included = generator.random((10, 40)).argsort(axis=0) < 5
    inside = np.array([models[included[:, n], n].mean() for n in range(40)])
    outside = np.array([models[~included[:, n], n].mean() for n in range(40)])
    found = _rmia.log_ratio_online(np.log(p), np.log(models), included)
    np.testing.assert_allclose(np.exp(found), p / ((inside + outside) / 2))
    for a in (0.0, 0.3, 1.0):
        found = _rmia.log_ratio_offline(np.log(p), np.log(models), included, a)
        np.testing.assert_allclose(np.exp(found), p / (((1 + a) * outside + (1 - a)) / 2))
    np.testing.assert_allclose(
        calibrate_signal(np.log(p), np.log(models), included),
        [np.log(p[n]) - np.log(models[~included[:, n], n]).mean() for n in range(40)],
    )


def test_direction_a_record_that_the_target_is_surer_of_than_models_without_it_scores_higher():
    shadows = np.array([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0], [6.0, 6.0]]) - 10
    included = np.array([[0, 0], [0, 0], [1, 1], [1, 1]], bool)
    observed = np.array([5.5, 0.5]) - 10
    for scores in (
        _lira.compute_online_ratio(observed, shadows, included),
        _lira.compute_offline_score(observed, shadows, included),
        calibrate_signal(observed, shadows, included),
        _rmia.score_population_share(_rmia.log_ratio_online(observed, shadows, included), np.array([0.0])),
        _rmia.score_population_share(_rmia.log_ratio_offline(observed, shadows, included, 0.5), np.array([0.0])),
    ):
        assert scores[0] > scores[1]


def test_records_that_all_or_none_of_the_shadow_models_were_trained_on_get_the_average_gap():
    observed, shadows, included, _ = gaussian(records=200, shadows=32)
    included[:, 0], included[:, 1] = True, False
    inside, outside = _lira.fit_normals(shadows, included, "fixed"), _lira.fit_normals(shadows, ~included, "fixed")
    gap = np.nanmean(inside.mean - outside.mean)
    scores = _lira.compute_online_ratio(observed, shadows, included)
    assert np.isfinite(scores).all()
    expected = [
        stats.norm.logpdf(observed[0], inside.mean[0], inside.spread[0])
        - stats.norm.logpdf(observed[0], inside.mean[0] - gap, outside.spread[0]),
        stats.norm.logpdf(observed[1], outside.mean[1] + gap, inside.spread[1])
        - stats.norm.logpdf(observed[1], outside.mean[1], outside.spread[1]),
    ]
    np.testing.assert_allclose(scores[:2], expected)
    assert np.isnan(_lira.compute_offline_score(observed, shadows, included)[0])
    assert np.isfinite(_rmia.log_ratio_online(observed, shadows, included)).all()


def test_equal_signals_give_equal_scores():
    same, included = np.full((6, 10), 2.0), np.random.default_rng(0).random((6, 10)).argsort(axis=0) < 3
    for scores in (
        _lira.compute_online_ratio(same[0], same, included),
        _lira.compute_offline_score(same[0], same, included, variance="per-record"),
        _rmia.score_population_share(_rmia.log_ratio_online(-same[0], -same, included), np.zeros(5)),
        calibrate_signal(same[0], same, included),
    ):
        assert np.ptp(scores) == 0 and np.isfinite(scores).all()


def test_what_can_not_be_computed_is_refused():
    observed, shadows, included, _ = gaussian(records=10, shadows=2)
    with pytest.raises(ConfigurationError, match="variance"):
        _lira.compute_online_ratio(observed, shadows, included)
    with pytest.raises(TargetError, match="do not match"):
        _lira.compute_online_ratio(observed[:5], shadows, included)
    with pytest.raises(TargetError, match="not finite"):
        _lira.compute_online_ratio(np.full(10, np.inf), shadows, included)
    with pytest.raises(TargetError, match="NaN"):
        _rmia.log_ratio_online(np.full(10, np.nan), shadows, included)
    with pytest.raises(ConfigurationError, match="population"):
        _rmia.score_population_share(observed, np.empty(0))
    with pytest.raises(ConfigurationError, match="at least 4"):
        LiRA(shadows={"count": 2})
    with pytest.raises(ConfigurationError, match="offline attack"):
        LiRAOffline(shadows={"pool": "online"})
    with pytest.raises(ConfigurationError, match="online attack"):
        RMIA(shadows={"pool": "offline"})


def test_a_shadow_model_plays_the_target_with_its_own_members_and_never_judges_itself():
    _, shadows, included, _ = gaussian(records=50, shadows=6)
    parts = make_stand_ins(shadows[None], included)
    assert len(parts) == 4
    for number, part in enumerate(parts):
        others = [m for m in range(6) if m != number]
        (records,), (population,) = part.records, part.population
        np.testing.assert_array_equal(records.observed, shadows[number])
        np.testing.assert_array_equal(records.shadows, shadows[others])
        np.testing.assert_array_equal(part.is_member, included[number])
        assert len(population.observed) == (~part.is_member).sum()


@pytest.mark.parametrize("models", [1, 2, 3, 8])
@pytest.mark.parametrize("asked", [True, False])
def test_members_and_non_members_of_a_stand_in_are_compared_with_equally_many_models(models, asked):
    _, shadows, included, _ = gaussian(records=60, shadows=models)
    if models == 1:
        included[0] = np.arange(60) % 2 == 0
    target = np.full((1, 60), 7.0) if asked else None
    parts = make_stand_ins(shadows[None], included, target, separate=asked)
    assert len(parts) == (min(models, 4) if asked or models > 2 else 0)
    for number, part in enumerate(parts):
        (records,), (population,) = part.records, part.population
        left_out = (~records.included).sum(axis=0)
        assert len(np.unique(left_out)) == 1 == len(np.unique(np.append((~population.included).sum(axis=0), left_out)))
        if asked:  # the target is one more model that was not trained on any of them, and nothing is its own comparison
            assert (records.shadows[-1] == 7).all()
            assert not set(records.observed[~part.is_member]) & set(population.observed)
        # What counts as "not trained on it" was not trained on it.
        of_models = ~records.included[: models - 1]
        assert not (
            of_models & included[np.arange(models) != number][:, np.isin(shadows[number], records.observed)]
        ).any()


def test_models_that_remember_nothing_leave_stand_ins_without_a_trace():
    """With few models, the mean of one more model would tell the members of a stand-in apart from its non-members."""
    _, shadows, included, _ = gaussian(records=20_000, shadows=4, gap=0.0, between=0.0, spread=3.0)
    signals = -np.logaddexp(0, -shadows)
    for asked in (None, -np.logaddexp(0, -np.random.default_rng(9).normal(0, 3, (1, 20_000)))):
        for part in make_stand_ins(signals[None], included, asked, separate=asked is not None):
            for a in (0.0, 0.5, 1.0):
                measured = auc(RMIAOffline(a=a).score_views(part.records, part.population), part.is_member)
                assert abs(measured.value - 0.5) < 0.015


def test_no_shadow_model_can_play_the_target_if_the_others_know_all_its_non_members():
    # Each record is left out by one of four: a model's non-members are in the training sets of the three others.
    included = np.arange(4)[:, None] != np.arange(40)[None, :] % 4
    assert make_stand_ins(np.zeros((1, 4, 40)), included) == []


def test_offline_a_is_chosen_on_shadow_models_by_its_tpr_at_a_low_fpr():
    _, shadows, included, _ = gaussian(records=4000, shadows=8, gap=1.5, between=2.0)
    parts = make_stand_ins(-np.logaddexp(0, -shadows[None]), included, separate=True)
    tuned = RMIAOffline().tuned(parts)

    def quality(a):
        rates = []
        for part in parts:
            scores = RMIAOffline(a=a).score_views(part.records, part.population)
            others = np.sort(scores[~part.is_member])[::-1]
            rates.append((scores[part.is_member] > others[round(LOW_FPR * len(others))]).mean())
        return np.mean(rates)

    assert quality(tuned.a) == max(quality(a) for a in A_VALUES)
    assert RMIAOffline(a=0.2).tuned(parts).a == 0.2


def test_log_ratios_beyond_the_range_of_a_logistic_function_are_ordered():
    scores = _rmia.score_population_share(
        np.array([40.0, 41.0, 60.0, 500.0, np.inf, -500.0, -np.inf]), np.array([0.0] * 1000)
    )
    assert (np.diff(scores[:5]) > 0).all() and scores[6] < scores[5] < scores[0] and scores.max() <= 1


@pytest.mark.parametrize("attack", [LiRA, RMIA])
def test_several_views_are_scored_by_their_mean(attack):
    parts = [gaussian(seed, records=40, shadows=6) for seed in (1, 2, 3)]
    included = parts[0][2]
    views = [SignalEvidence(-abs(observed), -abs(shadows), included) for observed, shadows, *_ in parts]
    expected = np.mean([attack().score(view, view) for view in views], axis=0)
    np.testing.assert_array_equal(attack().score_views(views, views), expected)


@pytest.mark.parametrize("attack", [LiRA, LiRAOffline])
def test_variances_of_single_records_take_sixteen_models(attack):
    pool = attack.pool
    few, many = (attack(variance="per-record", shadows={"pool": pool, "count": count}) for count in (15, 16))
    observed, shadows, included, _ = gaussian(records=50, shadows=6)
    evidence = SignalEvidence(observed, shadows, included)
    np.testing.assert_array_equal(few.score(evidence, evidence), attack().score(evidence, evidence))
    assert (many.score(evidence, evidence) != attack().score(evidence, evidence)).any()
    assert "fixed variance" in few.notes()[0] and not many.notes() and not attack().notes()


def test_evidence_of_some_records():
    observed, shadows, included, is_member = gaussian(records=20, shadows=4)
    part = SignalEvidence(observed, shadows, included).select(is_member)
    assert part.observed.shape == (10,) and part.shadows.shape == part.included.shape == (4, 10)
