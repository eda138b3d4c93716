"""DP-SGD: an epoch of our trainer against a bare loop around Opacus' PrivacyEngine."""

from __future__ import annotations

import warnings

import numpy as np

from harness.row import AtMost, Row, near, require
from rows._networks import SimpleCNN, loaded, weights_of

BATCH, RATE, EPOCHS = 64, 0.05, 2
STEPS_COMPARED = 3

ROW = Row(
    "DP-SGD, two epochs",
    unit="records",
    sizes=(512, 1024, 1797),
    aims=(AtMost(1.1, "bare Opacus loop"),),
    rounds=5,
    allowance=25,
)


@ROW.inputs
def inputs(case):
    """Digits and the initial weights."""
    import torch

    from securitynet.datasets import load
    from securitynet.models.architectures.factory import build

    digits = load("digits")
    torch.manual_seed(0)
    case.save(
        "given",
        images=digits.batch(np.arange(case.size)).numpy(),
        labels=digits.labels[: case.size],
        **{name: value.numpy() for name, value in build("simple-cnn", 10, 1, 8).state_dict().items()},
    )


@ROW.side("ours")
def ours(case):
    import torch

    from securitynet.models.architectures.factory import build
    from securitynet.models.training.dp_sgd import PrivateSteps
    from securitynet.models.training.fit import fit
    from securitynet.models.training.recipe import Recipe

    warnings.filterwarnings("ignore")
    given = case.load("given")
    images, labels = torch.from_numpy(given["images"]), torch.from_numpy(given["labels"])

    def train(batch, epochs, noise):
        network = loaded(build("simple-cnn", 10, 1, 8), given)
        recipe = Recipe(
            epochs=epochs, batch_size=batch, learning_rate=RATE, momentum=0, weight_decay=0, schedule="constant"
        )
        procedure = PrivateSteps(noise_multiplier=noise, clipping_bound=1.0, clipping="per-sample")
        fit(network, images, labels, recipe, device=case.device, procedure=procedure, data_fingerprint="-")
        return weights_of(network)

    # Without noise and with every record in each batch both sides must end with the same weights.
    quiet = train(case.size, STEPS_COMPARED, 1e-12)

    def run():
        train(BATCH, EPOCHS, 1.0)
        return quiet

    return run


@ROW.side("bare Opacus loop", environment="opacus")
def bare(case):
    import torch
    from opacus import PrivacyEngine
    from torch.nn import functional
    from torch.utils.data import DataLoader, TensorDataset

    warnings.filterwarnings("ignore")
    given = case.load("given")
    images = torch.from_numpy(given["images"]).float() / 255
    records = TensorDataset(images.to(case.device), torch.from_numpy(given["labels"]).to(case.device))

    def train(batch, epochs, noise):
        network = loaded(SimpleCNN(8), given).to(case.device).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
        network, optimizer, loader = PrivacyEngine().make_private(
            module=network,
            optimizer=optimizer,
            data_loader=DataLoader(records, batch_size=batch),
            noise_multiplier=noise,
            max_grad_norm=1.0,
        )
        for _ in range(epochs):
            for inputs, wanted in loader:
                optimizer.zero_grad()
                functional.cross_entropy(network(inputs), wanted).backward()
                optimizer.step()
        return weights_of(network._module)

    quiet = train(case.size, STEPS_COMPARED, 1e-12)

    def run():
        train(BATCH, EPOCHS, 1.0)
        return quiet

    return run


@ROW.check
def check(case, found):
    given, mine = case.load("given"), found["ours"]
    moved = max(float(np.abs(mine[name] - given[name]).max()) for name in mine)
    require(moved > 1e-3, "nothing was learned")
    gap = max(near(mine[name], found["bare Opacus loop"][name], 1e-5, name) for name in mine)
    return (
        f"without noise and sampling, weights after {STEPS_COMPARED} steps differ by {gap:.1g} (they moved {moved:.2g})"
    )
