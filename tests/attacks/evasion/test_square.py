"""The square attack in L2: the package's search, with windows of colour images scaled channel by channel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from securitynet.attacks.evasion._torchattacks import CountedModel, import_torchattacks, use_seed
from securitynet.attacks.evasion.square import _L2Norms, make_square

pytest.importorskip("torchattacks")


def run_both(channels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, and the examples of this project and of the package for them, with one seed."""
    with use_seed(0):
        network = nn.Sequential(nn.Flatten(), nn.Linear(channels * 100, 3))
        images = torch.rand(12, channels, 10, 10)
        labels = network(images).argmax(dim=1)
    model, settings = CountedModel(network, torch.device("cpu")), {"n_queries": 30, "resc_schedule": False}
    package = import_torchattacks().Square(model, norm="L2", eps=0.5, seed=0, **settings)
    examples = []
    for attack in (make_square(model, "l2", 0.5, 0, **settings), package):
        with use_seed(0):
            examples.append(attack(images, labels).detach())
    return images, examples[0], examples[1]


def test_norms_by_hand() -> None:
    norms, differences = _L2Norms(), torch.zeros(1, 2, 2, 2)
    differences[0, 0, 0] = torch.tensor([3.0, 4.0])
    differences[0, 1, 0, 0] = 12.0
    whole, by_channel, last = (norms(differences) for _ in range(3))
    assert whole.flatten().tolist() == last.flatten().tolist() == [13.0]
    assert by_channel.shape == (1, 2, 1, 1) and by_channel.flatten().tolist() == [5.0, 12.0]
    assert norms(differences).shape == (1, 1, 1, 1)  # the next step begins


def test_only_colour_images_are_attacked_otherwise_than_by_the_package() -> None:
    _, ours, theirs = run_both(1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    images, ours, theirs = run_both(3)
    assert not torch.equal(ours, theirs)
    assert ((ours - images).flatten(1).norm(dim=1) <= 0.5 + 1e-5).all()
