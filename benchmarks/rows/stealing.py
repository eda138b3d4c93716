"""Model stealing with a fixed budget against KnockoffNets of the Adversarial Robustness Toolbox and a bare loop.

All sides ask the same target about the same images, and train the same surrogate from the same weights by the same
optimizer for as many epochs. The toolbox is given a target that answers posteriors: from one that answers logits, as
its documentation assumes, `use_probability` would learn from logits as if they were posteriors.
"""

from __future__ import annotations

import numpy as np

from harness.row import AtMost, Faster, Row, near, require
from rows._networks import SimpleCNN, bare_loop, loaded

EPOCHS = 20
TARGET, SURROGATE = "target.", "surrogate."

ROW = Row(
    "Model stealing with a fixed budget",
    unit="queries",
    sizes=(100, 200, 400),
    aims=(
        AtMost(1.1, "bare loop"),
        Faster(1, "ART KnockoffNets"),
        Faster(1, "ART KnockoffNets, labels", ours="ours, labels"),
    ),
    rounds=3,
    allowance=25,
)


def stolen_from(case, interface):
    """The attack and all that it is given."""
    from securitynet.attacks.stealing.securitynet_surrogate import SecurityNetSurrogate
    from securitynet.datasets import load
    from securitynet.datasets.splits import four_way
    from securitynet.methods.context import Context
    from securitynet.methods.data import TrialData
    from securitynet.models.shadows import obtain_shadow
    from securitynet.models.training.recipe import Recipe
    from securitynet.records import Access, Auxiliary, ThreatModel

    digits = load("digits")
    data = TrialData(digits, four_way(digits, known=0.9))
    recipe = Recipe(epochs=30, learning_rate=0.02, schedule="constant")
    target = obtain_shadow(
        digits, data.splits.members, "simple-cnn", recipe, device="cpu", cache=case.folder.parent / "target"
    ).target
    attack = SecurityNetSurrogate(
        architecture="simple-cnn", recipe={"epochs": EPOCHS}, budgets=case.size, interface=interface
    )
    partial = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)
    return attack, target, data, Context(seed=0, device=case.device, threat_model=partial), partial


@ROW.inputs
def inputs(case):
    """Weights of the target and of the fresh surrogate, and the images that are asked about."""
    import torch

    from securitynet.attacks.stealing._pool import make_pool
    from securitynet.models.store.cached_model import ModelSpec, build_fresh_network
    from securitynet.models.training.pixel_statistics import fit_normalization
    from securitynet.randomness import make_generator

    attack, target, data, context, _ = stolen_from(case, "full")
    digits = data.dataset
    records = make_pool(data, context, case.size, missing_classes=True).records
    recipe = attack.training(target, context)
    fresh = build_fresh_network(ModelSpec(digits, records, digits.labels[records], 10, "simple-cnn", recipe))
    orders = [
        torch.randperm(len(records), generator=make_generator(recipe.seed, "order", epoch)).numpy()
        for epoch in range(recipe.epochs)
    ]
    arrays = {}
    for prefix, network, steps in (
        (TARGET, target.backend.module, target.preprocessing),
        (SURROGATE, fresh, fit_normalization(digits, records)),
    ):
        arrays |= {f"{prefix}{name}": value.numpy() for name, value in network.state_dict().items()}
        arrays |= {f"{prefix}mean": steps.mean[0], f"{prefix}std": steps.std[0]}
    case.save(
        "given",
        asked=digits.batch(records).numpy(),
        judged=digits.batch(data.splits.non_members).numpy(),
        orders=np.stack(orders),
        batch=recipe.batch_size,
        rate=recipe.learning_rate,
        **arrays,
    )


def network_of(given, prefix, softmax=False):
    values = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
    network = SimpleCNN(8, mean=float(values["mean"]), std=float(values["std"]), softmax=softmax)
    return loaded(network, values)


def attacking(interface):
    """Our side: the whole attack, the judging of its surrogate included."""

    def prepare(case):
        attack, target, data, context, partial = stolen_from(case, interface)

        def run():
            output = attack(target, data, context, partial)
            return {"predicted": output.surrogate[0], "target": output.target}

        return run

    return prepare


ROW.side("ours")(attacking("full"))


@ROW.side("bare loop")
def bare(case):
    """Ask, train, and nothing else."""
    import torch

    given = case.load("given")
    target = network_of(given, TARGET).eval().to(case.device)
    asked, judged = (torch.from_numpy(given[name]).to(case.device) for name in ("asked", "judged"))
    orders = [list(torch.split(torch.from_numpy(order), int(given["batch"]))) for order in given["orders"]]

    def run():
        with torch.no_grad():
            posteriors = target(asked.float() / 255).softmax(dim=1)
        surrogate = network_of(given, SURROGATE).to(case.device)
        bare_loop(surrogate, asked, posteriors, orders, float(given["rate"]))
        with torch.no_grad():
            answers = [network(judged.float() / 255).argmax(dim=1).cpu() for network in (surrogate, target)]
        return {"predicted": answers[0].numpy(), "target": answers[1].numpy()}

    return run


def knockoff(soft):
    """KnockoffNets with random sampling."""

    def prepare(case):
        import torch
        from art.attacks.extraction import KnockoffNets
        from art.estimators.classification import PyTorchClassifier
        from torch import nn

        given = case.load("given")
        asked, judged = (given[name].astype(np.float32) / 255 for name in ("asked", "judged"))

        def classifier(network):
            optimizer = torch.optim.SGD(network.parameters(), lr=float(given["rate"]), momentum=0.9, weight_decay=5e-4)
            return PyTorchClassifier(
                network,
                loss=nn.CrossEntropyLoss(),
                optimizer=optimizer,
                input_shape=(1, 8, 8),
                nb_classes=10,
                clip_values=(0, 1),
                device_type="cpu" if case.device == "cpu" else "gpu",
            )

        victim = classifier(network_of(given, TARGET, softmax=True))
        attack = KnockoffNets(
            victim,
            batch_size_fit=int(given["batch"]),
            batch_size_query=512,
            nb_epochs=EPOCHS,
            nb_stolen=len(asked),
            use_probability=soft,
            verbose=False,
        )

        def run():
            np.random.seed(0)
            torch.manual_seed(0)
            stolen = attack.extract(asked, thieved_classifier=classifier(network_of(given, SURROGATE)))
            return {
                "predicted": stolen.predict(judged).argmax(axis=1),
                "target": victim.predict(judged).argmax(axis=1),
            }

        return run

    return prepare


ROW.side("ART KnockoffNets", environment="art")(knockoff(soft=True))
ROW.side("ours, labels")(attacking("labels"))
ROW.side("ART KnockoffNets, labels", environment="art")(knockoff(soft=False))


@ROW.check
def check(case, found):
    for side in found.values():
        require(np.array_equal(side["target"], found["ours"]["target"]), "the sides have different targets")
    same = (found["ours"]["predicted"] == found["bare loop"]["predicted"]).mean()
    require(same >= 0.995, f"the bare loop's surrogate says the same of {same:.1%} of the images only")
    agreement = {name: float((side["predicted"] == side["target"]).mean()) for name, side in found.items()}
    require(agreement["ours"] > 0.5, "nothing was stolen")
    for ours, theirs in (("ours", "ART KnockoffNets"), ("ours, labels", "ART KnockoffNets, labels")):
        near(agreement[ours], agreement[theirs], 0.05, "agreement with the target")  # orders of records differ
    told = ", ".join(f"{name} {value:.3f}" for name, value in agreement.items())
    return f"the bare loop's surrogate predicts as ours for {same:.1%}; agreement with the target: {told}"
