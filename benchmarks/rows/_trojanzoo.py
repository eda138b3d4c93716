"""TrojanZoo's filters and its Neural Cleanse, as they are, with small stand-ins for what they would load from folders.

Its classes want a dataset, a model and an attack of their own kinds, from folders of its own. They get objects that
have what they use: a network without gradients of its weights (as its `Model` keeps it), batches, and a mark.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rows._torchvision import imported

SIDE = 4
"""Of the regions that NEO covers."""


def make_importable() -> None:
    """Import what it imports: torchvision, and a name that newer versions of matplotlib have moved."""
    imported("torchvision")
    import matplotlib
    import matplotlib.cm

    if not hasattr(matplotlib.cm, "get_cmap"):
        matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap


class Network:
    """What its code asks of a model."""

    def __init__(self, module: Any, classes: int = 10) -> None:
        self.module, self.num_classes = module.requires_grad_(False), classes

    def __call__(self, images: Any) -> Any:
        return self.module(images)

    def get_class(self, images: Any) -> Any:
        return self(images).argmax(dim=1)

    def get_data(self, data: Any) -> Any:
        return data

    def loss(self, _input: Any, _label: Any, _output: Any) -> Any:
        from torch.nn.functional import cross_entropy

        return cross_entropy(_output, _label)


class MovingMark:
    """A watermark, as far as NEO moves it."""

    def __init__(self, channels: int) -> None:
        import torch

        self.mark_height = self.mark_width = SIDE
        self.mark_height_offset = self.mark_width_offset = 0
        self.mark = torch.ones(channels + 1, SIDE, SIDE)

    def get_mask(self) -> Any:
        import torch

        return torch.ones(SIDE, SIDE)

    def add_mark(self, images: Any) -> Any:
        marked = images.clone()
        top, left = int(self.mark_height_offset), int(self.mark_width_offset)
        marked[..., top : top + SIDE, left : left + SIDE] = self.mark[:-1]
        return marked


def strip(network: Any, pool: Any) -> Any:
    """Its STRIP: ``get_score(images)`` gives mean entropies in nats; each image of the pool is laid over all."""
    make_importable()
    from trojanvision.defenses.backdoor.input_filtering.strip import Strip

    class Overlays:
        """Its loader gives a batch for each overlay; here each batch is one image of the pool, for all images alike."""

        def __iter__(self) -> Any:
            return iter([(image.expand(len(pool) * 8, *image.shape), None) for image in pool])

    peer = object.__new__(Strip)
    peer.model, peer.strip_alpha, peer.strip_sample_num, peer.loader = Network(network), 0.5, len(pool), Overlays()
    return peer


def neo(network: Any, held_out: Any, regions: int) -> Any:
    """Its NEO, as a function of one image that says whether it is stopped. Localisation is left out."""
    make_importable()
    from trojanvision.defenses.backdoor.input_filtering import neo as module

    module.env["device"] = str(held_out.device)
    module.mask_jaccard = lambda *_, **__: 0.0
    peer = object.__new__(module.Neo)
    peer.model, peer.neo_asr_threshold, peer.neo_kmeans_num, peer.neo_sample_num = Network(network), 0.8, 3, regions
    peer.mark_size, peer.select_num, peer.real_mask = [SIDE, SIDE], SIDE * SIDE, None
    mark = MovingMark(held_out.shape[1])
    peer.attack = SimpleNamespace(mark=mark, add_mark=mark.add_mark)
    peer.dataset = SimpleNamespace(loader={"valid": [(part, None) for part in held_out.split(100)]})
    logger = SimpleNamespace(update=lambda **_: None)
    return lambda image: peer.get_pred_label(image, logger=logger)


def neural_cleanse(network: Any, batches: list, epochs: int) -> Any:
    """Its Neural Cleanse, as a function of a label that gives the mark, (C+1)×H×W, its mask last.

    Everything about the search is its own: `optimize_mark` with its defaults, autograd, Adam, its schedule.
    """
    make_importable()
    import torch
    from trojanvision.defenses.backdoor.model_inspection.neural_cleanse import NeuralCleanse

    images = batches[0][0]
    mark = SimpleNamespace(mark=torch.zeros(images.shape[1] + 1, *images.shape[2:], device=images.device))

    def add_mark(clean: Any) -> Any:
        return clean + mark.mark[-1] * (mark.mark[:-1] - clean)

    peer = object.__new__(NeuralCleanse)
    peer.model = Network(network)
    peer.attack = SimpleNamespace(mark=mark, add_mark=add_mark)
    peer.defense_remask_epoch, peer.defense_remask_lr = epochs, 0.1
    peer.cost = peer.init_cost = 1e-3
    peer.cost_multiplier_up, peer.cost_multiplier_down = 1.5, 1.5**1.5
    peer.nc_asr_threshold = peer.nc_early_stop_threshold = 0.99
    peer.nc_patience, peer.early_stop_patience = 10.0, 20.0

    def search(label: int) -> Any:
        torch.manual_seed(label)  # its starting point
        peer.cost = peer.init_cost  # it hands the last label's cost to the next, which is surely not meant
        return peer.optimize_mark(label, loader=batches, verbose=False)[0]

    return search
