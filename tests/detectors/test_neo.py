"""NEO against plain loops, on a network with a trigger and on one without."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from backdoored import PATCH
from securitynet.detectors._neo import regions as _regions
from securitynet.detectors._neo.colours import find_dominant_colours
from securitynet.detectors._neo.regions import Grid
from securitynet.detectors.neo import Neo
from securitynet.errors import SplitError
from securitynet.methods.context import Context
from securitynet.metrics import filtering
from securitynet.records import Access, Auxiliary, ThreatModel

MODEL = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)
SIZE = 0.25  # 2×2 in 8×8


def run(target, data, seed=0, **settings):
    context = Context(seed=seed)
    output = Neo(**{"size": SIZE, **settings})(target, data, context, MODEL)
    return {m.name: m for m in output.measurements(level=0.95, fprs=(0.1,), seed=seed)}, output, context


def streams(count):
    return [torch.Generator().manual_seed(row) for row in range(count)]


def plainly(target, image, held_out, colour, size, bound, others):
    """(is it stopped, largest share): one region after the other, each on all held-out images."""
    label = target.labels(image[None]).item()
    before = target.labels(held_out)
    kept = before != label if others else torch.ones_like(before, dtype=torch.bool)
    best = 0.0
    for top in range(image.shape[1] - size + 1):
        for left in range(image.shape[2] - size + 1):
            hidden = image.clone()
            hidden[:, top : top + size, left : left + size] = colour[:, None, None]
            if target.labels(hidden[None]).item() == label:
                continue
            pasted = held_out.clone()
            pasted[:, :, top : top + size, left : left + size] = image[:, top : top + size, left : left + size]
            best = max(best, (target.labels(pasted) != before)[kept].double().mean().item())
    return best > bound, best


@pytest.mark.parametrize("counted", ["others", "all"])
def test_verdicts_are_those_of_a_plain_loop_over_all_regions(patched, counted):
    """Whatever the search, since all regions are tried."""
    target, data = patched[:2]
    held_out = data.dataset.batch(data.splits.known_non_members[:40])
    clean = data.dataset.batch(data.splits.scored_non_members[:8])
    from securitynet.detectors._known_trigger import Trigger

    images = torch.cat([clean, Trigger(**PATCH).apply_trigger(clean)])
    expected, colours = None, None
    for search in ("random", "guided"):
        fitted = Neo(size=SIZE, regions=49, counted=counted, search=search, held_out=40).deploy(target, held_out)
        found = fitted.examine(images, np.arange(len(images)), "test")
        if expected is None:
            colours = torch.from_numpy(found["colours"])
            pairs = zip(images, colours, strict=True)
            expected = [plainly(target, i, held_out, c, 2, 0.8, counted == "others") for i, c in pairs]
        np.testing.assert_array_equal(found["colours"], colours.numpy())
        assert found["flagged"].tolist() == [stopped for stopped, _ in expected]
        assert found["flagged"][8:].sum() >= 4 and not found["flagged"][:8].any()
        for score, flagged, (_, best) in zip(found["scores"], found["flagged"], expected, strict=True):
            assert (score > 0.8) == flagged
            assert (score > 0) == (best > 0) or score == 0  # what stays below the bound is asked about no further


def test_catches_stamped_images_finds_the_trigger_and_passes_clean_ones(patched):
    found, output, _ = run(*patched[:2], trigger=PATCH, images=60)
    assert found["detection-rate"].low > 0.6
    assert found["false-rejection-rate"].value < 0.05
    assert found["localisation"].value > 0.3
    caught = output.facts["stamped regions"][output.triggered.flagged & output.works]
    assert (caught[:, :2].mean(axis=0) > 4).all(), "the patch is at the bottom right"
    assert output.galleries()[0].images.shape[1:] == (3, 1, 8, 8)


def test_stops_next_to_nothing_on_a_clean_network(unpatched):
    found, _, _ = run(*unpatched, trigger=PATCH, images=60, regions=30)
    assert found["false-rejection-rate"].value < 0.05
    assert found["detection-rate"].value is None or found["detection-rate"].value < 0.2


def test_all_places_can_be_drawn_and_sizes_follow_the_image():
    assert (Grid((32, 32), 0.125).height, len(Grid((32, 32), 0.125))) == (4, 29 * 29)
    assert (Grid((28, 28), 0.125).height, Grid((224, 224), 0.125).height, Grid((4, 4), 0.125).height) == (4, 28, 1)
    grid = Grid((6, 9), 0.34)  # not square
    assert (grid.height, grid.width, grid.rows, grid.columns) == (2, 3, 5, 7)
    masks = grid.masks(torch.arange(len(grid)))
    assert (masks.flatten(1).sum(dim=1) == 6).all()
    assert masks[-1, 0, 4:, 6:].all() and masks[0, 0, :2, :3].all(), "corners included"
    drawn = {
        place
        for seed in range(40)
        for place in _regions.draw_places(
            grid, 3, torch.zeros(len(grid), dtype=torch.bool), torch.Generator().manual_seed(seed)
        ).tolist()
    }
    assert len(drawn) > 30 and min(drawn) == 0 and max(drawn) == len(grid) - 1
    taken = torch.zeros(len(grid), dtype=torch.bool)
    taken[:30] = True
    left = _regions.draw_places(grid, 99, taken, torch.Generator())
    assert sorted(left.tolist()) == list(range(30, 35))


def test_a_guided_search_looks_near_doubts():
    grid = Grid((16, 16), 0.25)
    taken = torch.zeros(1, len(grid), dtype=torch.bool)
    taken[0, ::5] = True
    doubts = torch.zeros(1, len(grid))
    centre = 6 * grid.columns + 7
    top, left = grid.corners(torch.arange(len(grid)))
    near = (top - 6).abs() + (left - 7).abs() <= 3
    doubts[0, taken[0] & near] = 5.0
    places = _regions.choose_promising_places(grid, 10, taken, doubts)[0]
    assert not taken[0, places].any() and len(set(places.tolist())) == 10
    assert near[places].float().mean() >= 0.8 or centre in places


def test_a_trigger_that_few_places_reveal_is_found_more_often_by_a_guided_search(patched):
    target, data = patched[:2]
    few = {"trigger": PATCH, "images": 50, "regions": 16}
    guided = run(target, data, search="guided", **few)[0]["detection-rate"].value
    random = run(target, data, search="random", **few)[0]["detection-rate"].value
    assert guided > random


def test_dominant_colours_against_scikit_learn():
    random = np.random.default_rng(0)
    images = np.empty((12, 3, 20, 24), np.uint8)
    for image in images:  # three colours with noise, of different areas
        colours = random.integers(20, 236, (3, 3))
        owner = random.choice(3, size=(20, 24), p=[0.6, 0.25, 0.15])
        image[:] = (colours[owner] + random.integers(-3, 4, (20, 24, 3))).clip(0, 255).transpose(2, 0, 1)
    found = find_dominant_colours(torch.from_numpy(images), 3, streams(12)).numpy().astype(int)
    for image, colour in zip(images, found, strict=True):
        model = KMeans(3, n_init=10, random_state=0).fit(image.reshape(3, -1).T.astype(float))
        largest = model.cluster_centers_[np.bincount(model.labels_).argmax()]
        assert np.abs(colour - largest).max() <= 1
    alone = torch.cat(
        [find_dominant_colours(torch.from_numpy(images[i : i + 1]), 3, [streams(12)[i]]) for i in range(12)]
    )
    np.testing.assert_array_equal(alone.numpy().astype(int), found)


def test_dominant_colours_of_few_colours_and_of_large_images():
    flat = torch.full((2, 1, 8, 8), 77, dtype=torch.uint8)
    assert find_dominant_colours(flat, 3, streams(2)).tolist() == [[77], [77]]
    two = flat.clone()
    two[:, :, :3] = 200
    assert find_dominant_colours(two, 3, streams(2)).tolist() == [[77], [77]]
    large = torch.full((1, 3, 200, 150), 10, dtype=torch.uint8)
    large[:, 0, :70] = 250
    assert find_dominant_colours(large, 3, streams(1)).tolist() == [[10, 10, 10]]


def test_a_region_of_the_dominant_colour_is_not_asked_about(unpatched):
    target, data = unpatched
    fitted = Neo(size=SIZE).deploy(target, data.dataset.batch(data.splits.known_non_members[:40]))
    before = fitted.client.sent
    fitted.examine(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), np.arange(1), "test")
    assert fitted.client.sent == before + 1, "the image itself, and none of its 49 regions"


def test_too_few_held_out_images_are_told(patched):
    target, data = patched[:2]
    with pytest.raises(SplitError, match="at least 10"):
        Neo().deploy(target, data.dataset.batch(data.splits.known_non_members[:9]))


def test_overlap_by_hand():
    area = np.zeros((6, 6), bool)
    area[4:, 4:] = True
    assert filtering.compute_overlap(np.zeros((0, 6, 6), bool), area).shape == (0,)
    masks = np.zeros((3, 6, 6), bool)
    masks[0, 4:, 4:] = True
    masks[1, 3:5, 4:] = True
    assert filtering.compute_overlap(masks, area).tolist() == [1.0, pytest.approx(2 / 6), 0.0]
    mean = filtering.measure_mean_share("localisation", np.array([1.0, 0.5, 0.0, 0.5]))
    assert mean.value == 0.5 and mean.low < 0.3 and mean.high > 0.7
    same = filtering.measure_mean_share("localisation", np.full(10, 0.4))
    unseen = 1 - 0.025 ** (1 / 10)  # a share of so much may lie at either bound, and ten values not show it
    assert (same.low, same.high) == pytest.approx((0.4 - 0.4 * unseen, 0.4 + 0.6 * unseen))


@pytest.mark.parametrize("counted", ["others", "all"])
def test_asking_in_bf16_first_gives_the_same_predictions_and_verdicts(patched, counted):
    target, data = patched[:2]
    held_out = data.dataset.batch(data.splits.known_non_members[:40])
    clean = data.dataset.batch(data.splits.scored_non_members[:30])
    from securitynet.detectors._known_trigger import Trigger

    images = torch.cat([clean, Trigger(**PATCH).apply_trigger(clean)])
    found = {}
    for screen in ("none", "bf16"):
        neo = Neo(size=SIZE, regions=49, counted=counted, search="random", held_out=40, screen=screen)
        fitted = neo.deploy(target, held_out)
        found[screen] = fitted.examine(images, np.arange(len(images)), "test")
        assert (fitted.margin is None) == (screen == "none")
        assert any("bf16" in note for note in fitted.notes) == (screen == "bf16")
        if screen == "bf16":
            outputs = fitted.client.decided(images, fitted.margin)
            assert torch.equal(outputs.argmax(dim=1), target.labels(images))
            everything = fitted.client.decided(images, 1e9)
            assert torch.equal(everything, fitted.client.outputs(images)), "all in doubt: all asked again"
    for name, values in found["none"].items():
        np.testing.assert_array_equal(found["bf16"][name], values)
    assert found["none"]["flagged"][len(clean) :].mean() > 0.5


@pytest.mark.parametrize("faster", [True, False])
def test_auto_asks_in_bf16_first_where_that_is_faster(patched, monkeypatch, faster):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: faster)
    target, data = patched[:2]
    fitted = Neo(size=SIZE, regions=5, held_out=20, screen="auto").deploy(
        target, data.dataset.batch(data.splits.known_non_members[:20])
    )
    assert (fitted.margin is not None) is faster
    assert any("bf16" in note for note in fitted.notes) is faster


def test_bf16_first_needs_a_network_that_runs_here(patched):
    target, data = patched[:2]
    half = target.in_half()
    fitted = Neo(size=SIZE, regions=5, held_out=20, screen="bf16").deploy(
        half, data.dataset.batch(data.splits.known_non_members[:20])
    )
    assert fitted.margin is None
    assert any("cannot be queried in bf16" in note for note in fitted.notes)
