"""STRIP against plain loops, on a network with a trigger and on one without."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from backdoored import PATCH, Sealed
from securitynet.assessments.method_settings import make_method, parse_method_settings
from securitynet.detectors._fitted_filter import CleanImages
from securitynet.detectors._queries import QueryClient, bound_margin
from securitynet.detectors._strip.early_stop import EarlyStopPredictor
from securitynet.detectors.strip import FittedStrip, Strip
from securitynet.errors import ConfigurationError, SplitError
from securitynet.methods.context import Context
from securitynet.metrics import filtering
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

MODEL = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)


def make_strip(**settings):
    """STRIP with one way of mixing, by default that of the paper."""
    return Strip(**{"mix": "add", **settings})


def run(target, data, seed=0, **settings):
    context = Context(seed=seed)
    output = make_strip(**settings)(target, data, context, MODEL)
    return {m.name: m for m in output.measurements(level=0.95, fprs=(0.1, 0.01), seed=seed)}, output, context


def entropies_of(posteriors):
    """Plainly: in bits, 0·log 0 being 0."""
    return np.array([sum(-p * np.log2(p) for p in row if p > 0) for row in posteriors.astype(np.float64)])


@pytest.mark.parametrize("mix", ["add", "blend"])
def test_entropies_are_those_of_a_plain_loop(patched, mix):
    target, data = patched[:2]
    images, pool = data.dataset.batch(data.splits.non_members[:6]), data.dataset.batch(data.splits.members[:5])
    # As many overlays as there are images to choose from: each is laid over each, in whatever order.
    strip = make_strip(overlays=5, mix=mix, weight=0.3)
    fitted = strip.deploy(target, data.dataset.batch(data.splits.known_non_members[:50]), pool)
    for image, score in zip(images, fitted.judge(images).scores, strict=True):
        if mix == "add":
            mixed = torch.from_numpy(np.clip(image.numpy().astype(int) + pool.numpy().astype(int), 0, 255) / 255)
        else:
            mixed = 0.3 * image / 255 + 0.7 * pool / 255
        expected = entropies_of(target.posteriors(mixed.float()).numpy()).mean()
        assert score == pytest.approx(-expected, abs=1e-5)


def test_addition_is_cut_at_white():
    strip = make_strip(overlays=1)
    fitted = FittedStrip(strip, None, torch.zeros(1, 1, 1, 1, dtype=torch.uint8), 0)
    first = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).repeat_interleave(256, 0)
    second = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(256, 1, 1, 1)
    mixed = fitted.mixed(first, second)
    assert mixed.dtype == torch.uint8
    assert torch.equal(mixed.int(), (first.int() + second.int()).clamp(max=255))


def test_catches_stamped_images_and_passes_clean_ones(patched):
    found, output, _ = run(*patched[:2], trigger=PATCH, overlays=20)
    assert found["trigger-success-rate"].value > 0.8
    assert found["detection-rate"].low > 0.8
    assert found["auc"].low > 0.9
    assert found["auc"].direction.value == "higher"
    assert found["false-rejection-rate"].value < 0.12
    assert len(output.galleries()) == 1


def test_rejects_clean_images_at_its_rate_on_a_clean_network(unpatched):
    found, output, _ = run(*unpatched, trigger=PATCH, threshold="quantile", false_rejection_rate=0.1)
    rate = found["false-rejection-rate"]
    # Threshold and rate are both from a few hundred images: the interval twice as wide.
    assert abs(rate.value - 0.1) < rate.high - rate.low
    assert found["trigger-success-rate"].high < 0.4
    assert len(output.clean) == len(unpatched[1].splits.scored_non_members)


def test_the_threshold_comes_from_other_images_than_those_judged(patched):
    target, data = patched[:2]
    _, output, _ = run(target, data, threshold="normal", false_rejection_rate=0.03)
    entropies = -output.calibration
    expected = stats.norm.ppf(0.03, loc=entropies.mean(), scale=entropies.std(ddof=1))
    assert output.threshold == pytest.approx(-expected)
    assert set(output.indices) <= set(data.splits.scored_non_members)
    # Judging the other half changes what is flagged, not the threshold.
    fewer = dataclasses.replace(data.splits, non_members=np.sort(data.splits.non_members)[: len(output.indices)])
    assert set(fewer.known_non_members) <= set(data.splits.known_non_members)


def test_stopping_early_changes_no_verdict_and_saves_questions(patched):
    settings = {"trigger": PATCH, "overlays": 20, "threshold": "quantile", "false_rejection_rate": 0.01}
    full, complete, first = run(*patched[:2], **settings)
    quick, bounded, second = run(*patched[:2], stop_early=True, **settings)
    np.testing.assert_array_equal(complete.clean.flagged, bounded.clean.flagged)
    np.testing.assert_array_equal(complete.triggered.flagged, bounded.triggered.flagged)
    assert quick["detection-rate"].value == full["detection-rate"].value
    assert quick["auc"].value is None and "stop_early" in quick["auc"].note
    assert second.queries().total < first.queries().total
    assert bounded.facts["clean asked"].mean() < 0.7 * 20 and (complete.facts["clean asked"] == 20).all()
    assert (bounded.facts["clean asked"][bounded.clean.flagged] == 20).all()


@pytest.mark.parametrize("threshold", ["quantile", "auto"])
@pytest.mark.slow
def test_screening_in_bf16_changes_no_verdict(patched, threshold):
    settings = {"trigger": PATCH, "overlays": 20, "threshold": threshold, "false_rejection_rate": 0.1}
    _, complete, _ = run(*patched[:2], **settings)
    quick, screened, context = run(*patched[:2], stop_early=True, screen="bf16", **settings)
    assert screened.threshold == complete.threshold, "the threshold is that of full precision"
    np.testing.assert_array_equal(complete.clean.flagged, screened.clean.flagged)
    np.testing.assert_array_equal(complete.triggered.flagged, screened.triggered.flagged)
    assert complete.clean.flagged.any() and complete.triggered.flagged.any()
    assert "bf16" in quick["false-rejection-rate"].note
    # Where there was a doubt, questions were asked again; those are on the bill, and no new images.
    asked = context.queries()
    assert asked.total > asked.unique
    with pytest.raises(ConfigurationError, match="stop_early"):
        make_strip(screen="bf16")


def test_screening_falls_back_where_bf16_is_the_precision_already(patched):
    target, data = patched[:2]
    half = target.in_half()
    assert half.precision == "bf16" and half.in_half() is None and half.query_counter is target.query_counter
    assert half.backend.module is target.backend.module
    known = data.dataset.batch(data.splits.known_non_members[:60])
    found = make_strip(stop_early=True, screen="bf16").deploy(half, known)
    assert found.margin is None and "cannot be queried" in found.notes[-1]
    with torch.no_grad():
        gap = (half.logits(known) - target.logits(known)).abs().max()
    assert 0 < gap < 1, "it computes in another precision, and nearly the same"


class Told:
    """Questions whose answers are known: posteriors with the entropies of a table, by the images' first pixel."""

    def __init__(self, low, high):
        self.target = SimpleNamespace(batch_size=64, num_classes=2, head="logits")
        self.fewest = 16
        self.half, self.low, self.high = None, low, high

    def posteriors(self, images, *, half=False):
        dark = images.flatten(1)[:, 0] < 100
        return torch.where(dark[:, None], torch.tensor(self.low), torch.tensor(self.high)).float()


def test_both_verdicts_are_sure_as_soon_as_they_can_be():
    """By hand: of two classes no entropy is above 1 bit, and none below 0."""
    strip = make_strip(overlays=40, stop_early=True, threshold="quantile")
    pool = torch.zeros(40, 1, 1, 1, dtype=torch.uint8)
    images = torch.tensor([0, 200], dtype=torch.uint8).view(-1, 1, 1, 1)
    filtering = FittedStrip(strip, Told([0.0, 1.0], [0.5, 0.5]), pool, 0)
    filtering.threshold = -0.5
    found = filtering.examine(images, np.arange(2), "incoming")
    np.testing.assert_array_equal(found["flagged"], [True, False])
    # Eight at once, 16 for two images; the bound is a sum of 20. At 1 bit each it is passed with the third eight; at 0
    # bits it can't be reached any more with the 16 that are left then, and could be with the 24 before.
    np.testing.assert_array_equal(found["asked"], [24, 24])


@pytest.mark.parametrize("screen", ["none", "bf16"])
@pytest.mark.slow
def test_passing_by_prediction_stops_the_same_images_with_fewer_questions(patched, screen, monkeypatch):
    monkeypatch.setattr("securitynet.detectors._queries.FEWEST_HERE", 16)  # so that none is asked much too often
    settings = {"trigger": PATCH, "overlays": 48, "threshold": "quantile", "images": 200, "screen": screen}
    _, complete, _ = run(*patched[:2], **{**settings, "screen": "none"})
    _, certain, _ = run(*patched[:2], stop_early="certain", **settings)
    found, likely, _ = run(*patched[:2], stop_early="likely", **settings)
    assert likely.threshold == certain.threshold == complete.threshold
    np.testing.assert_array_equal(complete.clean.flagged, likely.clean.flagged)
    np.testing.assert_array_equal(complete.triggered.flagged, likely.triggered.flagged)
    assert complete.clean.flagged.any() and complete.triggered.flagged.any()
    assert likely.facts["clean asked"].mean() < 0.9 * certain.facts["clean asked"].mean()
    assert (likely.facts["clean asked"] <= certain.facts["clean asked"] + 1).all()
    note = found["false-rejection-rate"].note
    assert "by prediction" in note and "deviations" in note
    assert f"{likely.facts['clean asked'].mean():.3g} times on average" in note


def test_verdicts_by_prediction_do_not_depend_on_what_is_judged_together(patched):
    target, data = patched[:2]
    known, images = data.dataset.batch(data.splits.known_non_members), data.dataset.batch(data.splits.non_members[:40])
    fitted = make_strip(overlays=24, stop_early="likely", threshold="quantile").deploy(target, known)
    rows = np.arange(40)
    together = fitted.examine(images, rows, "incoming")
    alone = [fitted.examine(images[row : row + 1], rows[row : row + 1], "incoming") for row in rows]
    np.testing.assert_array_equal(together["flagged"], [one["flagged"][0] for one in alone])
    again = fitted.examine(images[10:20], rows[10:20], "incoming")
    np.testing.assert_array_equal(together["flagged"][10:20], again["flagged"])


def foreseen(entropies, table, threshold=None):
    """STRIP that has measured ``entropies``, N×K, in front of images whose entropies are the rows of ``table``."""
    count = table.shape[1]
    strip = make_strip(overlays=count, stop_early="likely", threshold="quantile")
    fitted = FittedStrip(strip, Told([1.0, 0.0], [0.5, 0.5]), torch.zeros(count, 1, 1, 1, dtype=torch.uint8), 0)
    fitted._choose(entropies.mean(axis=1))
    fitted._foresee(np.tile(np.arange(count), (len(entropies), 1)), entropies)
    fitted.threshold = fitted.threshold if threshold is None else threshold
    taken = [0] * len(table)

    def told(images, live, picks, half):
        found = []
        for row in live.tolist():
            found.append(table[row, taken[row] : taken[row] + picks.shape[1]])
            taken[row] += picks.shape[1]
        return torch.from_numpy(np.stack(found))

    fitted._entropies = told
    images = torch.zeros(len(table), 1, 1, 1, dtype=torch.uint8)
    return fitted, fitted.examine(images, np.arange(len(table)), "incoming")


def clean_entropies(count=200, overlays=40):
    draw = np.random.default_rng(0)
    return draw.gamma(9, 0.5 / 9, (count, 1)) * draw.gamma(4, 1 / 4, (count, overlays)).clip(0, 1.9)


def test_prediction_may_miss_an_image_and_never_stops_one():
    """Two images that clean ones say nothing about: all of the entropy first, and all of it last."""
    clean = clean_entropies()
    bound = np.sort(clean.mean(axis=1))[10]
    first, last = np.zeros(40), np.zeros(40)
    first[:12], last[-24:] = 2 * bound, 2 * bound
    fitted, found = foreseen(clean, np.stack([first, last, np.zeros(40)]))
    assert -fitted.threshold == bound
    assert first.mean() < bound < last.mean()
    # The first ought to be stopped. After half of what it shows its mean is twice the bound: that is believed.
    np.testing.assert_array_equal(found["flagged"], [False, False, True])
    assert found["asked"][0] <= 12
    # Nothing could be predicted of the second that stops it, nor the third: all the overlays are seen, or enough for
    # certainty: one bit each at most of those left.
    assert found["asked"][1] > 20 and (40 - found["asked"][2]) < 40 * bound


def test_predicted_bounds_are_those_of_a_plain_regression():
    clean = clean_entropies()
    predictor = EarlyStopPredictor.measured(clean)
    number = 10
    x, y = np.cbrt(clean[:, :number].mean(axis=1)), np.cbrt(clean[:, number:].mean(axis=1))
    left_out = []
    for one in range(len(clean)):
        others = np.arange(len(clean)) != one
        fit = stats.linregress(x[others], y[others])
        left_out.append(y[one] - fit.intercept - fit.slope * x[one])
    left_out, fit = np.array(left_out), stats.linregress(x, y)
    deviation = np.sqrt((left_out**2).sum() / (len(clean) - 2))
    margin = max(stats.t.isf(stats.norm.sf(4), len(clean) - 2) * deviation, -1.25 * left_out.min())
    assert float(predictor.margins[number]) == pytest.approx(margin)
    seen = np.array([0.0, 3.0, 5.0, 9.0])
    least = np.maximum(fit.intercept + fit.slope * np.cbrt(seen / number) - margin, 0) ** 3
    expected = seen + 30 * np.minimum(least, seen / number)
    predicted, found = predictor.totals(torch.from_numpy(seen)[:, None], torch.tensor([number]))
    np.testing.assert_allclose(found[:, 0], expected)
    most = np.minimum((fit.intercept + fit.slope * np.cbrt(seen / number)) ** 3, seen / number)
    np.testing.assert_allclose(predicted[:, 0], seen + 30 * most)
    assert (found[:, 0].numpy() > seen).any()
    # When all are seen, or too few of them, nothing is added.
    for edge in (1, 3, 40):
        for found in predictor.totals(torch.from_numpy(seen)[:, None], torch.tensor([edge])):
            np.testing.assert_array_equal(found[:, 0], seen)


def test_predicted_bounds_hold_for_other_clean_images():
    clean = clean_entropies(1200)
    predictor = EarlyStopPredictor.measured(clean[:200])
    sums = torch.from_numpy(clean[200:]).cumsum(dim=1)
    below = predictor.totals(sums, torch.arange(1, 41))[1] <= sums[:, -1:] + 1e-9
    assert below.double().mean() > 0.9999


@pytest.mark.parametrize(
    "entropies", [clean_entropies()[:19], clean_entropies()[:, :4], np.full((60, 20), 0.7), np.zeros((60, 20))]
)
def test_nothing_is_predicted_from_few_images_few_overlays_or_equal_ones(entropies):
    assert EarlyStopPredictor.measured(entropies) is None
    fitted, found = foreseen(entropies, np.full((2, entropies.shape[1]), 0.1))
    assert "Nothing could be predicted" in fitted.notes[-1] and "certain only" in fitted.notes[-1]
    np.testing.assert_array_equal(found["flagged"], entropies.mean() > 0.1)


def test_a_threshold_above_all_stops_all():
    clean = clean_entropies()
    # No mean of two classes is above one bit; and where it could be, none is predicted to be.
    _, found = foreseen(clean, clean[:20].clip(max=1), threshold=-1.5)
    assert found["flagged"].all() and (found["asked"] == 1).all()
    _, found = foreseen(clean, np.full((3, 40), 0.9), threshold=-0.95)
    assert found["flagged"].all()
    _, found = foreseen(clean, clean[:20], threshold=-0.0)
    assert not found["flagged"].any() and (found["asked"] == 1).all()


def test_words_for_stopping_early_are_kept_as_before():
    for given, kept in (("no", False), ("certain", True), (True, True), (False, False), ("likely", "likely")):
        assert make_strip(stop_early=given).model_dump(mode="json")["stop_early"] == kept
        assert Strip.model_validate(make_strip(stop_early=given).model_dump(mode="json")) == make_strip(
            stop_early=given
        )
    assert Strip.model_validate({"stop_early": "true"}).stop_early is True
    assert (
        make_method("detector", "strip", parse_method_settings(["strip.stop_early=likely"])["strip"]).stop_early
        == "likely"
    )
    with pytest.raises(ConfigurationError, match="stop_early"):
        make_strip(stop_early="sometimes")


def test_a_killed_run_by_prediction_goes_on_with_the_same_verdicts(patched, tmp_path):
    target, data = patched[:2]
    strip = make_strip(overlays=20, images=120, calibration=80, stop_early="likely", threshold="quantile")

    def attempt(cache, most=None):
        sealed = Target(Sealed(target.backend, most), access=Access.BLACK_BOX)
        context = Context(seed=0, cache=cache)
        return strip(sealed, data, context, MODEL), context.queries()

    whole, billed = attempt(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        attempt(tmp_path / "killed", most=billed.total // 2)
    resumed, again = attempt(tmp_path / "killed")
    for name, values in whole.arrays().items():
        np.testing.assert_array_equal(values, resumed.arrays()[name], err_msg=name)
    assert again == billed


def test_overlays_that_tell_most_come_first():
    strip = make_strip(overlays=3, stop_early=True, threshold="quantile")
    fitted = FittedStrip(strip, None, torch.zeros(3, 1, 1, 1, dtype=torch.uint8), 0)
    fitted._rank(np.array([[0, 1, 2], [2, 1, 0]]), np.array([[0.1, 0.5, 0.9], [0.7, 0.5, 0.3]]))
    # (sum + 4 times the mean of all) / (2 + 4)
    np.testing.assert_allclose(fitted.expected, [(0.4 + 2) / 6, (1.0 + 2) / 6, (1.6 + 2) / 6])


def test_the_margin_is_wide():
    assert bound_margin(np.array([0.01, -0.01])) == pytest.approx(6 * np.sqrt(2) * 0.01)
    assert bound_margin(np.array([0.02])) == pytest.approx(0.04)
    errors = np.random.default_rng(0).normal(0.001, 0.01, 1000)
    assert bound_margin(errors[:64]) > np.abs(errors).max()


def test_questions_are_counted_exactly(patched):
    target, data = patched[:2]
    _, output, context = run(target, data, overlays=4, images=100, calibration=60, trigger=PATCH)
    clean, tuning = 100, 60
    # 100 judged and 60 tuning images as they are; four overlays on each, and on 100 stamped; those once as they are.
    assert context.queries().total == clean + tuning + 4 * (clean + tuning + clean) + clean
    assert len(output.clean) == 100 and len(output.calibration) == 60


def test_too_few_clean_images_are_told(patched):
    target, data = patched[:2]
    few = dataclasses.replace(data.splits, known_non_members=data.splits.known_non_members[:9])
    with pytest.raises(SplitError, match="at least 10"):
        run(target, dataclasses.replace(data, splits=few))
    none = dataclasses.replace(data.splits, known_non_members=data.splits.known_non_members[:0])
    with pytest.raises(SplitError, match="clean images"):
        run(target, dataclasses.replace(data, splits=none))


def test_a_pool_smaller_than_the_overlays_is_used_again(patched):
    target, data = patched[:2]
    clean = CleanImages(data.dataset.batch(data.splits.members[:20]), data.dataset.batch(data.splits.members[20:23]))
    fitted = make_strip(overlays=7).fitted(QueryClient(target), clean)
    assert np.isfinite(fitted.judge(clean.tuning[:2]).scores).all()


def test_low_threshold_by_hand():
    values = np.arange(1.0, 101.0)
    normal = filtering.choose_low_threshold(values, 0.05, "normal")
    assert normal.value == pytest.approx(50.5 - 1.6448536 * values.std(ddof=1))
    quantile = filtering.choose_low_threshold(values, 0.05, "quantile")
    assert quantile.value == 6 and (values < quantile.value).mean() == 0.05
    assert filtering.choose_low_threshold(values, 0.05) == normal
    # Skewed to the right, as entropies near 0 are: mean 1.2, deviation 2; a normal fit would stop nothing.
    skewed = np.concatenate([np.linspace(0.1, 0.5, 90), np.linspace(1, 20, 10)])
    assert filtering.choose_low_threshold(skewed, 0.05, "normal").value < 0
    assert filtering.choose_low_threshold(skewed, 0.05).fit == "quantile"
    assert (skewed < filtering.choose_low_threshold(skewed, 0.05).value).sum() == 5
    assert (
        filtering.choose_low_threshold(skewed, 0.01).fit == "normal"
    )  # one rejection among 100 could be missed by chance
    for bad in ((values[:1], 0.1), (np.array([1.0, np.nan]), 0.1), (values, 0.0)):
        with pytest.raises(ValueError, match="threshold"):
            filtering.choose_low_threshold(*bad)


def test_both_mixes_stop_what_either_stops_at_half_of_the_rate(patched):
    target, data = patched[:2]
    images = data.dataset.batch(data.splits.scored_non_members[:40])
    tuning = data.dataset.batch(data.splits.known_non_members[:120])
    settings = {"overlays": 4, "threshold": "quantile"}
    both = Strip(**settings, false_rejection_rate=0.1).deploy(target, tuning)
    verdicts = both.judge(images)
    apart = [Strip(**settings, mix=mix, false_rejection_rate=0.05).deploy(target, tuning) for mix in ("add", "blend")]
    either = np.any([fitted.judge(images).flagged for fitted in apart], axis=0)
    np.testing.assert_array_equal(verdicts.flagged, either)
    np.testing.assert_array_equal(verdicts.scores > 0, either)
    assert (both.calibration > 0).mean() <= 0.1 and both.nominal == 0.1
    scaled = [(fitted.judge(images).scores - fitted.threshold) / fitted.calibration.std() for fitted in apart]
    np.testing.assert_allclose(verdicts.scores, np.max(scaled, axis=0))
