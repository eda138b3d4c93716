"""Fredrikson inversion of ten classes and model stealing on large images: a ResNet-18 of ten classes.

Weights are random and images noise, as only the sizes matter. The bare loops are as many forward and backward passes:
of ten images through the frozen target, and of the queried images through a surrogate in training.
"""

from __future__ import annotations

import numpy as np

from harness.row import Holds, Row, require

CLASSES, ITERATIONS, QUERIES, EPOCHS, BATCH = 10, 10, 64, 2, 16

ROW = Row(
    "Inversion and stealing of large images, ResNet-18",
    unit="pixels a side",
    sizes=(64, 224),
    aims=(Holds(3000, size=224, ours="ours: inversion"), Holds(3000, size=224, ours="ours: stealing")),
    rounds=1,
    allowance=20,
)


def make_network():
    import torch

    from securitynet.torchvision_cure import import_torchvision

    torch.manual_seed(0)
    return import_torchvision("torchvision.models").resnet18(num_classes=CLASSES)


def make_case(case):
    """The target and its data: noise, half of it members."""
    import torch

    from securitynet.datasets.base import ImageDataset
    from securitynet.datasets.splits import public
    from securitynet.methods.data import TrialData
    from securitynet.models.targets.backends.module import ModuleBackend
    from securitynet.models.targets.target import Target
    from securitynet.records import Access

    random, count, shape = np.random.default_rng(0), 6 * QUERIES, (3, case.size, case.size)
    images = torch.from_numpy(random.integers(0, 256, (count, *shape), dtype=np.uint8))
    parts = {"train": np.arange(0, count // 2), "test": np.arange(count // 2, count)}
    dataset = ImageDataset("noise", images, np.arange(count) % CLASSES, tuple(map(str, range(CLASSES))), parts)
    backend = ModuleBackend(make_network(), reference="random", checksum="random", example_shape=shape)
    return Target(backend, access=Access.WHITE_BOX), TrialData(dataset, public(dataset, known=0.5))


@ROW.side("ours: inversion")
def invert(case):
    from securitynet.attacks.inversion._attacked_classes import AttackedClasses
    from securitynet.attacks.inversion.fredrikson import Fredrikson
    from securitynet.methods.context import Context

    target, data = make_case(case)
    attack = Fredrikson(iterations=ITERATIONS, patience=ITERATIONS, threshold=0.999999)
    attacked = AttackedClasses.of(target, data, None, 1)

    def run():
        with attack.search(attacked, data, Context(device=case.device)).carried_out(Context()) as found:
            return {"images": found.images.numpy()}

    return run


@ROW.side("bare loop: inversion")
def invert_bare(case):
    import torch

    network = make_network().eval().requires_grad_(False)
    wanted = torch.arange(CLASSES)

    def run():
        images = torch.rand(CLASSES, 3, case.size, case.size)
        for _ in range(ITERATIONS):
            images.requires_grad_()
            loss = torch.nn.functional.cross_entropy(network(images), wanted, reduction="sum")
            images = (images.detach() - 0.1 * torch.autograd.grad(loss, images)[0]).clamp_(0, 1)
        return {"images": images.numpy()}

    return run


@ROW.side("ours: stealing")
def steal(case):
    from securitynet.attacks.stealing.securitynet_surrogate import SecurityNetSurrogate
    from securitynet.methods.context import Context
    from securitynet.records import Access, Auxiliary, ThreatModel

    target, data = make_case(case)
    partial = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)
    recipe = {"epochs": EPOCHS, "batch_size": BATCH}
    attack = SecurityNetSurrogate(architecture="torchvision:resnet18", recipe=recipe, budgets=QUERIES)

    def run():
        output = attack(target, data, Context(seed=0, device=case.device, threat_model=partial), partial)
        return {"predicted": output.surrogate[0]}

    return run


@ROW.side("bare loop: stealing")
def steal_bare(case):
    """Query, train, and compare on the non-members, which are half of the images."""
    import torch

    images = torch.rand(QUERIES, 3, case.size, case.size)

    def run():
        target, surrogate = make_network().eval(), make_network().train()
        optimizer = torch.optim.SGD(surrogate.parameters(), lr=0.01, momentum=0.9)
        with torch.inference_mode():
            posteriors = torch.cat([target(part).softmax(dim=1) for part in images.split(BATCH)]).clone()
        for _ in range(EPOCHS):
            for rows in torch.randperm(QUERIES).split(BATCH):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(surrogate(images[rows]), posteriors[rows]).backward()
                optimizer.step()
        surrogate.eval()
        with torch.inference_mode():
            for network in (target, surrogate):
                for _ in range(3):
                    predicted = torch.cat([network(part).argmax(dim=1) for part in images.split(BATCH)])
        return {"predicted": predicted.numpy()}

    return run


@ROW.check
def check(case, found):
    images = found["ours: inversion"]["images"]
    require(images.shape == (CLASSES, 3, case.size, case.size), f"images of shape {images.shape}")
    require(len(found["ours: stealing"]["predicted"]) > 0, "nothing was judged")
    return f"{CLASSES} images after {ITERATIONS} iterations, and a surrogate of {QUERIES} queries after {EPOCHS} epochs"
