"""STRIP and NEO against TrojanZoo's: the same network, images and settings; verdicts compared first, then time.

TrojanZoo is installed without its dependencies in a folder of its own, as none of them is missing here:

    pip install --no-deps --target PEER trojanzoo==2.0.3
    PYTHONPATH=PEER python benchmarks/strip_neo.py --weights resnet20-12fca82f.th --cifar cifar10-jpeg

Its filters are called as they are; small stand-ins give them network, images and a mark, which its own classes would
load from its own folders. Sides alternate; each figure is a median with its range.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import math
import statistics
import time
from types import SimpleNamespace

import numpy as np
import torch

import securitynet.datasets
from securitynet.detectors._filters import CleanImages
from securitynet.detectors._questions import Questions
from securitynet.detectors.neo import Neo
from securitynet.detectors.strip import Strip
from securitynet.models.loading import load_target
from securitynet.models.target import Target
from securitynet.torchvision_cure import import_torchvision

SIDE = 4


class Network:
    """What TrojanZoo's filters ask of a model."""

    def __init__(self, module):
        self.module = module

    def __call__(self, images):
        with torch.no_grad():
            return self.module(images)

    def get_class(self, images):
        return self(images).argmax(dim=1)

    def get_data(self, data):
        return data


class Mark:
    """A watermark of TrojanZoo, as far as NEO moves it."""

    def __init__(self, channels, side):
        self.mark_height = self.mark_width = side
        self.mark_height_offset = self.mark_width_offset = 0
        self.mark = torch.ones(channels + 1, side, side)

    def get_mask(self):
        return torch.ones(SIDE, SIDE)

    def add_mark(self, images):
        marked = images.clone()
        top, left = int(self.mark_height_offset), int(self.mark_width_offset)
        marked[..., top : top + SIDE, left : left + SIDE] = self.mark[:-1]
        return marked


def peer_strip(network, images, pool):
    """Mean entropies by TrojanZoo, in bits: each image with each image of the pool."""
    from trojanvision.defenses.backdoor.input_filtering.strip import Strip as Peer

    peer = object.__new__(Peer)
    peer.model, peer.strip_alpha, peer.strip_sample_num = network, 0.5, len(pool)
    # Its loader gives a batch for each overlay; here each batch is one image of the pool, for all images alike.
    peer.loader = [(image.expand(len(images), *image.shape), None) for image in pool]
    with torch.no_grad():
        return peer.get_score(images).double().numpy() / math.log(2)


def peer_neo(network, images, held_out, regions):
    """Verdicts by TrojanZoo."""
    from trojanvision.defenses.backdoor.input_filtering import neo

    neo.env["device"] = "cpu"
    neo.mask_jaccard = lambda *_, **__: 0.0  # localisation is not timed
    peer = object.__new__(neo.Neo)
    peer.model, peer.neo_asr_threshold, peer.neo_kmeans_num, peer.neo_sample_num = network, 0.8, 3, regions
    peer.mark_size, peer.select_num, peer.real_mask = [SIDE, SIDE], SIDE * SIDE, None
    mark = Mark(images.shape[1], SIDE)
    peer.attack = SimpleNamespace(mark=mark, add_mark=mark.add_mark)
    peer.dataset = SimpleNamespace(loader={"valid": [(part, None) for part in held_out.split(100)]})
    logger = SimpleNamespace(update=lambda **_: None)
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        return np.array([peer.get_pred_label(image, logger=logger) for image in images])


def make_importable():
    """TrojanZoo imports a name that newer versions of matplotlib have moved."""
    import matplotlib
    import matplotlib.cm

    if not hasattr(matplotlib.cm, "get_cmap"):
        matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap


def timed(function):
    started = time.perf_counter()
    found = function()
    return found, time.perf_counter() - started


def report(title, theirs, ours):
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    print(
        f"{title}: TrojanZoo {statistics.median(theirs):.2f} s ({min(theirs):.2f} to {max(theirs):.2f}), ours "
        f"{statistics.median(ours):.2f} s ({min(ours):.2f} to {max(ours):.2f}), ratio {statistics.median(ratios):.1f} "
        f"({min(ratios):.1f} to {max(ratios):.1f})",
        flush=True,
    )


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="of ResNet-20")
    parser.add_argument("--cifar", required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=50, help="for STRIP")
    parser.add_argument("--overlays", type=int, default=20)
    parser.add_argument("--neo-images", type=int, default=3)
    parser.add_argument("--held-out", type=int, default=50)
    parser.add_argument("--regions", type=int, default=50, help="of NEO; the peer takes minutes an image with 200")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    import_torchvision()
    make_importable()
    dataset = securitynet.datasets.load(f"parquet:{options.cifar}", limit=2000)
    target = load_target("arch:cifar-resnet20", weights=options.weights, dataset=dataset, normalize="imagenet")
    # The peer has the network as it was trained: unfolded, in the usual layout.
    from securitynet.models.architectures.factory import build
    from securitynet.models.weights import read_state_dict

    plain = build("cifar-resnet20", 10, channels=3, image_size=32)
    state = read_state_dict(options.weights)[0]
    plain.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()}, strict=False)
    preprocessing = target.preprocessing
    network = Network(torch.nn.Sequential(_Preprocessed(preprocessing), plain).eval())
    test = dataset.batch(dataset.parts["test"])
    floats = test.float() / 255
    gap = (network(floats[:64]) - target.logits(test[:64])).abs().max()
    assert gap < 1e-3, f"not the same network: {gap}"
    versions = {name: importlib.metadata.version(name) for name in ("torch", "trojanzoo")}
    print(f"ResNet-20, {options.threads} thread(s), {versions}")

    count, pool = options.images, test[-options.overlays :]
    tuning = test[count : 3 * count]

    def ours_strip(stop_early):
        fresh = Target(target.backend, preprocessing=preprocessing)
        strip = Strip(overlays=len(pool), mix="blend", threshold="quantile", stop_early=stop_early)
        return strip.fitted(Questions(fresh), CleanImages(tuning, pool))

    fitted, quick = ours_strip(False), ours_strip(True)
    theirs, ours, early = [], [], []
    for _ in range(options.rounds):
        entropies, seconds = timed(lambda: peer_strip(network, floats[:count], floats[-options.overlays :]))
        theirs.append(seconds)
        judged, seconds = timed(lambda: fitted.judge(test[:count]))
        ours.append(seconds)
        stopped, seconds = timed(lambda: quick.judge(test[:count]))
        early.append(seconds)
    gap = np.abs(entropies + judged.scores).max()
    same = ((entropies < -fitted.threshold) == judged.flagged).all() and (judged.flagged == stopped.flagged).all()
    print(f"STRIP: largest difference of entropies {gap:.1e} bits; the same verdicts: {same}")
    report(f"STRIP, {count} images × {len(pool)} overlays", theirs, ours)
    report("STRIP, stopping early", theirs, early)

    few, held_out = options.neo_images, options.held_out
    theirs, ours, verdicts = [], [], []
    for number in range(options.rounds):
        rows = slice(number * few, (number + 1) * few)
        torch.manual_seed(number)
        first, seconds = timed(lambda rows=rows: peer_neo(network, floats[rows], floats[-held_out:], options.regions))
        theirs.append(seconds)
        neo = Neo(search="random", counted="all", held_out=held_out, regions=options.regions)
        filtering = neo.fitted(
            Questions(Target(target.backend, preprocessing=preprocessing)), CleanImages(test[-held_out:], test[:0])
        )
        second, seconds = timed(lambda rows=rows, filtering=filtering: filtering.judge(test[rows]))
        ours.append(seconds)
        verdicts.append((first == second.flagged).mean())
    print(f"NEO: share of equal verdicts {np.mean(verdicts):.3f} (regions are drawn at random on both sides)")
    report(f"NEO, {few} images × {options.regions} regions, {held_out} held out", theirs, ours)


class _Preprocessed(torch.nn.Module):
    def __init__(self, preprocessing):
        super().__init__()
        self.preprocessing = preprocessing

    def forward(self, images):
        return self.preprocessing(images)


if __name__ == "__main__":
    main()
