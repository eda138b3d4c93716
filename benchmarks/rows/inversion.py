"""Fredrikson inversion of ten classes against MIFace of the Adversarial Robustness Toolbox."""

from __future__ import annotations

import numpy as np

from harness.row import Faster, Row, near, require
from rows._networks import SimpleCNN, loaded

ITERATIONS = 60
RATE = 0.1
COMPARED = 5

ROW = Row(
    "Fredrikson inversion of ten classes",
    unit="pixels a side",
    sizes=(8, 16, 28),
    aims=(Faster(5, "ART MIFace"), Faster(5, "ART MIFace", size=8)),
    rounds=5,
    allowance=20,
)


@ROW.inputs
def inputs(case):
    """A network trained on digits, the images to start from, and the mean image of each class."""
    import torch

    from securitynet.datasets import load
    from securitynet.datasets.splits import four_way
    from securitynet.models.shadows import obtain_shadow
    from securitynet.models.training.recipe import Recipe
    from securitynet.randomness import make_generator

    digits = load("digits", size=case.size)
    members = four_way(digits).members
    recipe = Recipe(epochs=5, optimizer="adam", learning_rate=1e-3, schedule="constant")
    target = obtain_shadow(digits, members, "simple-cnn", recipe, device="cpu", cache=case.folder).target
    own = digits.labels[members]
    # Noise: where all pixels are equal, pooling has ties, which the last bit decides, and with it where gradients go.
    start = torch.rand((10, *digits.image_shape), generator=make_generator(0, "inversion starts"))
    case.save(
        "target",
        start=start.numpy(),
        mean=target.preprocessing.mean[0],
        std=target.preprocessing.std[0],
        means=np.stack([digits.batch(members[own == c]).numpy().mean(axis=0) / 255 for c in range(10)]),
        **{name: value.numpy() for name, value in target.backend.module.state_dict().items()},
    )


@ROW.side("ours")
def ours(case):
    from securitynet.attacks.inversion._attacked_classes import AttackedClasses
    from securitynet.attacks.inversion.fredrikson import Fredrikson
    from securitynet.datasets import load
    from securitynet.datasets.splits import four_way
    from securitynet.methods.context import Context
    from securitynet.methods.data import TrialData
    from securitynet.models.architectures.factory import build
    from securitynet.models.sources.preprocessing import Preprocessing
    from securitynet.models.targets.backends.module import ModuleBackend
    from securitynet.models.targets.target import Target
    from securitynet.records import Access

    given = case.load("target")
    network = loaded(build("simple-cnn", 10, 1, case.size), given)
    shape = (1, case.size, case.size)
    backend = ModuleBackend(network, reference="arch:simple-cnn", checksum="-", example_shape=shape)
    steps = Preprocessing(mean=(float(given["mean"]),), std=(float(given["std"]),))
    target = Target(backend, preprocessing=steps, access=Access.WHITE_BOX)
    digits = load("digits", size=case.size)
    data = TrialData(digits, four_way(digits))

    def search(iterations):
        attack = Fredrikson(
            objective="posterior",
            start="noise",
            learning_rate=RATE,
            iterations=iterations,
            patience=iterations,
            threshold=0.999999,
        )
        attacked = AttackedClasses.of(target, data, None, 1)
        with attack.search(attacked, data, Context()).carried_out(Context()) as found:
            return found.images.numpy()

    first = search(COMPARED)
    return lambda: {"first": first, "images": search(ITERATIONS)}


@ROW.side("ART MIFace", environment="art")
def miface(case):
    import torch
    from art.attacks.inference.model_inversion import MIFace
    from art.estimators.classification import PyTorchClassifier

    given = case.load("target")
    network = SimpleCNN(case.size, mean=float(given["mean"]), std=float(given["std"]), softmax=True)
    network = loaded(network, given).eval()
    shape = (1, case.size, case.size)
    classifier = PyTorchClassifier(
        network,
        torch.nn.NLLLoss(),
        input_shape=shape,
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu" if case.device == "cpu" else "gpu",
    )

    def search(iterations):
        # In version 1.20.1 the stop test is inverted: images go on while their cost is *below* the threshold. With its
        # default they would stop after one iteration; with 1 they never do, as on our side.
        attack = MIFace(
            classifier,
            max_iter=iterations,
            window_length=iterations,
            threshold=1.0,
            learning_rate=RATE,
            batch_size=10,
            verbose=False,
        )
        return attack.infer(x=given["start"], y=np.arange(10))

    first = search(COMPARED)
    return lambda: {"first": first, "images": search(ITERATIONS)}


@ROW.side("bare loop")
def bare_loop(case):
    """Forward and backward passes, and the step: no stop test, no choice of the best."""
    import torch

    given = case.load("target")
    network = SimpleCNN(case.size, mean=float(given["mean"]), std=float(given["std"]))
    network = loaded(network, given).eval().requires_grad_(False).to(case.device)
    wanted = torch.arange(10, device=case.device)[:, None]

    def search(iterations):
        images = torch.from_numpy(given["start"]).to(case.device)
        for _ in range(iterations):
            images.requires_grad_()
            cost = 1 - network(images).softmax(dim=1).gather(1, wanted)
            (gradient,) = torch.autograd.grad(cost.sum(), images)
            images = (images.detach() - RATE * gradient).clamp_(0, 1)
        return images.cpu().numpy()

    first = search(COMPARED)
    return lambda: {"first": first, "images": search(ITERATIONS)}


@ROW.check
def check(case, found):
    moved = np.abs(found["ours"]["images"] - case.load("target")["start"]).max()
    require(moved > 0.1, "nothing moved")
    gap = max(near(found["ours"]["first"], side["first"], 1e-4, "first images") for side in found.values())
    means = case.load("target")["means"]
    errors = {name: float(((side["images"] - means) ** 2).mean()) for name, side in found.items()}
    near(errors["ours"], errors["ART MIFace"], 0.002, "mean squared errors")
    told = ", ".join(f"{name} {error:.4f}" for name, error in errors.items())
    return f"images after {COMPARED} iterations differ by {gap:.1g}; squared error to the classes' means: {told}"
