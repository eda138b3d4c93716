"""The fast recipe: two epochs of our trainer against a bare loop of PyTorch with the same network and arithmetic.

The bare loop shifts and mirrors its images at random, and neither averages weights nor changes the learning rate.
"""

from __future__ import annotations

import numpy as np

from harness.row import AtMost, Row, near, require
from rows import _material
from rows._networks import loaded, weights_of

BATCH, EPOCHS, REACH = 512, 2, 2
COMPARED, STEPS_COMPARED = 256, 3
RATE, MOMENTUM, DECAY, SMOOTHING = 0.05, 0.85, 5e-4, 0.2

ROW = Row(
    "Fast recipe, two epochs of airbench",
    unit="images",
    sizes=(4096,),
    aims=(AtMost(1.1, "bare loop"),),
    rounds=3,
    allowance=40,
)


@ROW.inputs
def inputs(case):
    """Images, and weights before the training with the layer that is computed from images."""
    import torch

    from securitynet.models.architectures.factory import build

    _material.write(case, case.size, architecture="simple-cnn")
    torch.manual_seed(0)
    network = build("airbench", 10)
    network.initialise_from_images(_material.images(case)[0].cpu())
    case.save("initial", **{name: value.numpy() for name, value in network.state_dict().items()})


def make_network(case):
    from securitynet.models.architectures.factory import build

    return loaded(build("airbench", 10), case.load("initial"))


def half(case):
    import torch

    from securitynet.devices import uses_bfloat16

    return uses_bfloat16("auto", torch.device(case.device))


@ROW.side("ours")
def ours(case):
    import torch

    from securitynet.models.training.fit import fit
    from securitynet.models.training.presets import make_recipe

    given = case.load(_material.IMAGES)
    images, labels = torch.from_numpy(given["images"]), torch.from_numpy(given["labels"])

    def train(count, **changes):
        network = make_network(case)
        recipe = make_recipe("fast", "airbench", changes)
        fit(network, images[:count], labels[:count], recipe, device=case.device, data_fingerprint="-")
        return weights_of(network)

    plain = {"augment": "none", "lookahead": False, "precision": "fp32", "schedule": "constant", "bias_rate": 1}
    plain |= {"learning_rate": RATE, "momentum": MOMENTUM, "weight_decay": DECAY, "label_smoothing": SMOOTHING}
    quiet = train(COMPARED, epochs=STEPS_COMPARED, batch_size=COMPARED, **plain)

    def run():
        train(case.size, epochs=EPOCHS, batch_size=BATCH)
        return quiet

    return run


@ROW.side("bare loop")
def bare(case):
    import torch
    from torch.nn import functional

    given = case.load(_material.IMAGES)
    images = torch.from_numpy(given["images"]).to(case.device)
    labels = torch.from_numpy(given["labels"]).to(case.device)

    def augment(batch):
        count, _, height, width = batch.shape
        padded = functional.pad(batch, (REACH,) * 4, mode="reflect").unfold(2, height, 1).unfold(3, width, 1)
        tops, lefts = torch.randint(0, 2 * REACH + 1, (2, count), device=batch.device)
        batch = padded[torch.arange(count, device=batch.device), :, tops, lefts]
        return torch.where((torch.rand(count, device=batch.device) < 0.5).view(-1, 1, 1, 1), batch.flip(3), batch)

    def train(count, epochs, changed, rounded):
        network = make_network(case).to(case.device, memory_format=torch.channels_last).train()
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        optimizer = torch.optim.SGD(weights, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True)
        for _ in range(epochs):
            for rows in torch.randperm(count, device=case.device).split(BATCH):
                batch = images[rows].float() / 255
                batch = (augment(batch) if changed else batch).contiguous(memory_format=torch.channels_last)
                optimizer.zero_grad()
                with torch.autocast(case.device, torch.bfloat16, enabled=rounded):
                    logits = network(batch)
                functional.cross_entropy(logits.float(), labels[rows], label_smoothing=SMOOTHING).backward()
                optimizer.step()
        return weights_of(network.to(memory_format=torch.contiguous_format))

    quiet = train(COMPARED, STEPS_COMPARED, changed=False, rounded=False)

    def run():
        train(case.size, EPOCHS, changed=True, rounded=half(case))
        return quiet

    return run


@ROW.check
def check(case, found):
    given, mine = case.load("initial"), found["ours"]
    moved = max(float(np.abs(mine[name] - given[name]).max()) for name in mine if name.endswith("weight"))
    require(moved > 1e-3, "nothing was learned")
    gap = max(near(mine[name], found["bare loop"][name], 1e-3, name) for name in mine)
    return (
        f"in float32 and without augmentation, weights after {STEPS_COMPARED} steps differ by {gap:.1g} (they moved "
        f"{moved:.2g})"
    )
