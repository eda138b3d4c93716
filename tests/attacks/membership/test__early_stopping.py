"""Early stopping of attack networks: who is held out, which epoch is used, and that it helps where networks overfit."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from securitynet.attacks import ATTACKS
from securitynet.attacks.membership._early_stopping import BestEpoch, hold_out_records, update_all
from securitynet.attacks.membership._learned import MLP
from securitynet.models.training.ensembles import EnsembleTraining, predict_logits, train_together


def test_a_fifth_of_each_group_is_held_out_unless_it_is_too_few():
    members = torch.arange(300) < 100
    held_out = hold_out_records(members, seed=1)
    assert held_out[members].sum() == 20 and held_out[~members].sum() == 40
    assert torch.equal(held_out, hold_out_records(members, seed=1)) and not torch.equal(
        held_out, hold_out_records(members, seed=2)
    )
    assert not hold_out_records(torch.arange(300) < 30, seed=1).any()


def test_the_weights_of_the_epoch_with_the_lowest_balanced_loss_are_restored():
    members = torch.tensor([True, False, False, False])
    inputs = (torch.tensor([[1.0], [-1.0], [-1.0], [-1.0]]),)
    network = nn.Linear(1, 2, bias=False).eval()
    best = BestEpoch(network, inputs, members)
    for weight in (0.0, 2.0, -5.0):
        with torch.no_grad():
            network.weight.copy_(torch.tensor([[-weight], [weight]]))
        best.update()
    best.restore()
    assert network.weight[1].item() == 2.0
    nothing = BestEpoch(network, (torch.empty(0, 1),), torch.empty(0, dtype=torch.bool))
    nothing.update()
    nothing.restore()
    assert network.weight[1].item() == 2.0, "without held-out records, the last epoch stays"


def test_a_network_that_overfits_is_better_at_its_best_epoch():
    random = torch.Generator().manual_seed(0)
    labels = (torch.arange(800) % 2).long()
    inputs = torch.randn(800, 40, generator=random)
    inputs[:, 0] += 1.2 * labels
    losses = {}
    for stops in (True, False):
        torch.manual_seed(0)
        network = MLP(40, 64, 32, 2)
        members = labels[:300] == 1
        held_out = hold_out_records(members, 0) if stops else torch.zeros_like(members)
        rows = torch.arange(300)
        best = [BestEpoch(network, (inputs[rows[held_out]],), members[held_out])]
        epochs = []

        def after(best=best, epochs=epochs):
            update_all(best)
            epochs.append(1)

        training = EnsembleTraining(epochs=15, batch_size=64)
        fitted = rows[~held_out]
        train_together(
            [network],
            [(inputs,)],
            [labels[fitted]],
            training,
            seeds=[0],
            rows=[fitted],
            device="cpu",
            after_epoch=after,
        )
        best[0].restore()
        assert len(epochs) == 15
        losses[stops] = functional.cross_entropy(predict_logits(network, (inputs[300:],)), labels[300:]).item()
    assert losses[True] < 0.75 < losses[False]


def test_the_recipe_of_the_paper_is_an_option_and_the_default_keeps_trial_ids():
    attack = ATTACKS.get("mlp-posteriors")
    assert attack().stops_early and not attack(early_stopping=False).stops_early
    assert (
        "early_stopping" not in attack().model_dump() and "early_stopping" in attack(early_stopping=False).model_dump()
    )
    assert not ATTACKS.get("ml-doctor-black-box")().stops_early
    assert np.isclose(attack().learning_rate, 1e-2) and attack().epochs == 50
