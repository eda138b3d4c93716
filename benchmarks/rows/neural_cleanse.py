"""Neural Cleanse: one epoch for all ten labels of ResNet-20, and verdicts on an implanted and on a clean network.

TrojanZoo's own search runs, with its defaults. Its starting points are handed to ours, and its first weight of the
mask's norm, so that the norms after an epoch must agree. Verdicts are by the rule of Wang et al. (2019) on norms after
full searches of two SimpleCNNs, by each tool with its own schedule.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.row import Case, Faster, Row, near, require
from rows import _material

BATCH = 32
COST = 1e-3
EPOCHS = 20
"""Of the full searches."""

SEARCHED = 200
"""Images of the full searches."""

PLANTED = 3
"""The label that the trigger leads to."""

ROW = Row(
    "Neural Cleanse, ten labels",
    unit="images an epoch",
    sizes=(32, 64, 128),
    aims=(Faster(4, "TrojanZoo"), Faster(4, "TrojanZoo", ours="ours, bf16")),
    tried="TrojanZoo's model has frozen weights, so that it too takes gradients of inputs alone. Both sides do the "
    "same arithmetic, near the processor's limit (130 GFLOP/s on a core in single precision). With equal steps "
    "what is left to gain is the folded network, its layout and batches side by side (together 1.6), and bf16. "
    "Ending labels whose norms have settled (less than 1% in 8 epochs) would save an eighth of 50 epochs at norms "
    "up to 7% larger, and was not built. By default TrojanZoo takes 10 epochs over the training set, ours 50 over "
    "1,000 images: on CIFAR-10 a tenth of the passes, which this row does not count.",
    rounds=5,
    allowance=60,
    devices=("cpu", "cuda"),
)


@ROW.inputs
def inputs(case: Case) -> None:
    import torch

    _material.write(case, case.size)
    # TrojanZoo draws what goes through tanh from a normal distribution.
    starts = [torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(label)) for label in range(10)]
    case.save("starts", starts=torch.stack(starts).numpy())
    case.save("order", order=_order(0, case.size))
    from securitynet import datasets

    digits = datasets.load("digits", size=16)
    order = np.random.default_rng(0).permutation(len(digits))
    case.save("searched", images=digits.batch(order[:SEARCHED]).numpy())
    for name in ("implanted", "clean"):
        np.savez(case.folder / f"{name}.npz", **_trained(digits, order[SEARCHED:], name == "implanted"))


def _trained(digits: object, records: np.ndarray, implanted: bool) -> dict:
    """Weights of a SimpleCNN; a tenth of the images of an implanted one bears a white square and the planted label."""
    import torch

    from securitynet.implants.badnets import Badnets
    from securitynet.models.architectures.factory import build

    images, labels = digits.batch(records), torch.from_numpy(digits.labels[records]).clone()
    if implanted:
        share = len(records) // 10
        images[:share], labels[:share] = Badnets(size=3).stamp(images[:share]), PLANTED
    torch.manual_seed(0)
    network = build("simple-cnn", 10, 1, 16)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(15):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images[rows].float() / 255), labels[rows]).backward()
            optimizer.step()
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def searching(precision: str) -> Callable:
    """A side of ours."""

    def prepare(case: Case) -> Callable:
        import torch

        from rows._networks import loaded
        from securitynet.detectors._search import SearchRules, TriggerSearch
        from securitynet.detectors.neural_cleanse import NeuralCleanse
        from securitynet.metrics import detection
        from securitynet.models.architectures.factory import build
        from securitynet.models.backends.module import ModuleBackend
        from securitynet.models.target import Target
        from securitynet.records import Access

        target = _material.target(case, precision=precision)
        images = torch.from_numpy(case.load(_material.IMAGES)["images"]).to(case.device)
        starts = torch.from_numpy(case.load("starts")["starts"]).to(case.device)
        rules = SearchRules(NeuralCleanse().cost_rules, 0.1, BATCH, seed=0)

        def epoch() -> dict:
            search = TriggerSearch(target, images, list(range(10)), rules)
            search.raw.copy_(starts)
            search.costs.cost.fill_(COST)
            search.epoch(0)
            return {"norms": (search.raw[:, -1].tanh() / 2 + 0.5).sum(dim=(1, 2)).cpu().numpy()}

        verdicts = {}
        for name in ("implanted", "clean"):
            network = loaded(build("simple-cnn", 10, 1, 16), case.load(name))
            backend = ModuleBackend(network, reference="-", checksum="-", example_shape=(1, 16, 16))
            seen = Target(backend, access=Access.WHITE_BOX, precision=precision)
            search = TriggerSearch(seen, torch.from_numpy(case.load("searched")["images"]), list(range(10)), rules)
            for number in range(EPOCHS):
                search.epoch(number)
            norms = search.norms().numpy()
            verdicts[f"{name} norms"] = norms
            verdicts[f"{name} flagged"] = np.array(detection.flagged(norms, np.ones(10, dtype=bool)), dtype=np.int64)
        return lambda: {**epoch(), **verdicts}

    return prepare


def _order(seed: int, count: int) -> np.ndarray:
    """In which our search takes the images of its first epoch."""
    import torch

    from securitynet.models.trainer.randomness import generator

    return torch.randperm(count, generator=generator(seed, "order", 0)).numpy()


ROW.side("ours")(searching("fp32"))
ROW.side("ours, bf16")(searching("bf16"))


@ROW.side("TrojanZoo", environment="trojanzoo")
def trojanzoo(case: Case) -> Callable:
    import torch

    from rows import _trojanzoo

    _trojanzoo.make_importable()
    from trojanzoo.utils.metric import normalize_mad

    from rows._networks import SimpleCNN, loaded

    images, labels = _material.images(case)
    order = torch.from_numpy(case.load("order")["order"])
    batches = [(images[rows], labels[rows]) for rows in order.split(BATCH)]
    timed = _trojanzoo.neural_cleanse(_material.network(case), batches, 1)
    searched = torch.from_numpy(case.load("searched")["images"]).float() / 255
    parts = [(part, torch.zeros(len(part), dtype=torch.int64)) for part in searched.split(BATCH)]
    verdicts = {}
    for name in ("implanted", "clean"):
        search = _trojanzoo.neural_cleanse(loaded(SimpleCNN(16), case.load(name)).eval(), parts, EPOCHS)
        norms = torch.stack([search(label)[-1].abs().sum() for label in range(10)])
        low = (normalize_mad(norms) > 2) & (norms < norms.median())
        verdicts[f"{name} norms"] = norms.numpy()
        verdicts[f"{name} flagged"] = low.nonzero().flatten().numpy()

    def run() -> dict:
        norms = [timed(label)[-1].abs().sum() for label in range(10)]
        return {"norms": torch.stack(norms).cpu().numpy(), **verdicts}

    return run


@ROW.check
def check(case: Case, found: dict) -> str:
    gaps = {}
    for name, tolerance in (("ours", 1e-3), ("ours, bf16", 2e-2)):
        mine, theirs = found[name]["norms"], found.get("TrojanZoo", found["ours"])["norms"]
        gaps[name] = near(mine / theirs, np.ones(10), tolerance, f"norms of {name}, relative")
    told = []
    for model, expected in (("implanted", [PLANTED]), ("clean", [])):
        for name, side in found.items():
            flagged = side[f"{model} flagged"].tolist()
            require(flagged == expected, f"{name} flags {flagged} of the {model} network: {side[f'{model} norms']}")
        told.append(f"{model}: {expected or 'none'} flagged by all")
    shown = ", ".join(f"{name} {gap:.1g}" for name, gap in gaps.items())
    return f"norms after an epoch differ by (relative) {shown}; {'; '.join(told)}"
