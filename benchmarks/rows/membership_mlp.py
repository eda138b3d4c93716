"""Membership inference by networks over several targets, against the Adversarial Robustness Toolbox's."""

from __future__ import annotations

import numpy as np

from harness.row import AtMost, Faster, Row, require

KNOWN = 0.7

ROW = Row(
    "Membership inference by MLPs",
    unit="targets",
    sizes=(1, 10),
    aims=(
        Faster(10, "ART"),
        Faster(1, "ART", ours="ours, ML-Doctor's network"),
        AtMost(1, "one loop each, ML-Doctor's network", ours="ours, ML-Doctor's network"),
    ),
    tried="Each side trains its own network at its own settings: ours is SecurityNet's (64 and 32 neurons, 50 epochs), "
    "ART's has 84,000 weights (100 epochs). ML-Doctor's, with 92,000 weights, spends two thirds of its time in matrix "
    "products that run at the processor's limit; what autograd copied around them was taken out.",
    rounds=2,
    allowance=20,
)


@ROW.inputs
def inputs(case):
    """Outputs of targets that were trained on different halves of half of the digits."""
    from securitynet.datasets import load
    from securitynet.datasets.splits import four_way
    from securitynet.models.shadows import obtain_shadow
    from securitynet.models.training.recipe import Recipe

    digits = load("digits")
    cache = case.folder.parent / "targets"
    for number in range(case.size):
        splits = four_way(digits, seed=number)
        recipe = Recipe(epochs=80, learning_rate=0.02, weight_decay=0, schedule="constant", seed=number)
        target = obtain_shadow(digits, splits.members, "simple-cnn", recipe, device="cpu", cache=cache).target
        records = np.union1d(splits.members, splits.non_members)
        member = np.isin(records, splits.members)
        logits = target.logits(digits.batch(records)).numpy()
        case.save(f"recorded-{number}", logits=logits, labels=digits.labels[records], member=member)
        _, data = recorded(case, number)
        known = np.isin(data.judged, np.union1d(data.splits.known_members, data.splits.known_non_members))
        case.save(f"known-{number}", known=known)


def recorded(case, number):
    from securitynet.datasets.splits import public
    from securitynet.methods.data import TrialData
    from securitynet.models.targets.backends.recorded import RecordedBackend
    from securitynet.models.targets.target import Target

    path = case.folder / f"recorded-{number}.npz"
    backend = RecordedBackend(path, reference=f"outputs:{path.name}")
    dataset = backend.dataset()
    return Target(backend, head=backend.head), TrialData(dataset, public(dataset, seed=number, known=KNOWN))


def together(name):
    """A side that trains the networks of all targets at once."""

    def prepare(case):
        from securitynet.attacks import ATTACKS
        from securitynet.attacks.membership import attack_together
        from securitynet.methods.context import Context

        attack = ATTACKS.get(f"membership.{name}")()
        targets = [recorded(case, number) for number in range(case.size)]

        def run():
            cases = [(target, data, Context(device=case.device)) for target, data in targets]
            outputs = attack_together(attack, cases, attack.threat_models[0])
            return {f"scores-{number}": output.scores for number, output in enumerate(outputs)}

        return run

    return prepare


ROW.side("ours")(together("mlp-posteriors"))
ROW.side("ours, ML-Doctor's network")(together("ml-doctor-black-box"))


@ROW.side("ART", environment="art")
def toolbox(case):
    import torch
    from art.attacks.inference.membership_inference import MembershipInferenceBlackBox
    from art.estimators.classification import BlackBoxClassifier

    def run():
        torch.manual_seed(0)
        found = {}
        for number in range(case.size):
            data, known = case.load(f"recorded-{number}"), case.load(f"known-{number}")["known"]
            posteriors = torch.from_numpy(data["logits"]).softmax(dim=1).numpy()
            estimator = BlackBoxClassifier(lambda x, p=posteriors: p[: len(x)], input_shape=(1,), nb_classes=10)
            attack = MembershipInferenceBlackBox(estimator)
            taught, others = known & data["member"], known & ~data["member"]
            labels = data["labels"]
            attack.fit(y=labels[taught], test_y=labels[others], pred=posteriors[taught], test_pred=posteriors[others])
            answers = attack.infer(None, labels[~known], pred=posteriors[~known], probabilities=True)
            found[f"scores-{number}"] = answers[:, -1]
        return found

    return run


@ROW.side("one loop each, ML-Doctor's network")
def one_loop_each(case):
    """The same network, records, batches and steps of Adam, one network after the other, by torch alone."""
    import torch
    from torch.nn import functional

    from securitynet.attacks import ATTACKS
    from securitynet.methods.context import Context

    attack = ATTACKS.get("membership.ml-doctor-black-box")()
    prepared = [attack._prepared(*recorded(case, number), Context()) for number in range(case.size)]
    tensors = []
    for one in prepared:
        scales = attack.scales(one.known.features)
        known, asked = (
            tuple(scale(values).to(case.device) for scale, values in zip(scales, group.features, strict=True))
            for group in (one.known, one.wanted)
        )
        members = torch.from_numpy(one.known.is_member)
        share = members.float().mean()
        weights = torch.where(members, 0.5 / share, 0.5 / (1 - share))
        tensors.append((known, asked, members.long().to(case.device), weights.to(case.device)))

    def run():
        torch.manual_seed(0)
        found = {}
        for number, (known, asked, members, weights) in enumerate(tensors):
            network = attack.network([values.shape[1] for values in known]).to(case.device)
            optimizer = torch.optim.Adam(network.parameters(), lr=attack.learning_rate)
            for _ in range(attack.epochs):
                for batch in torch.split(torch.randperm(len(members)), attack.batch_size):
                    optimizer.zero_grad()
                    logits = network(*(values[batch] for values in known))
                    losses = functional.cross_entropy(logits, members[batch], reduction="none")
                    (losses * weights[batch]).mean().backward()
                    optimizer.step()
            with torch.no_grad():
                logits = network(*asked)
            found[f"scores-{number}"] = (logits[:, 1] - logits[:, 0]).cpu().numpy()
        return found

    return run


@ROW.check
def check(case, found):
    from scipy.stats import rankdata

    def auc(scores, member):
        ranks, count = rankdata(scores), member.sum()
        return (ranks[member].sum() - count * (count + 1) / 2) / (count * (~member).sum())

    reached = {}
    for name, side in found.items():
        values = []
        for number in range(case.size):
            judged = ~case.load(f"known-{number}")["known"]
            values.append(auc(side[f"scores-{number}"], case.load(f"recorded-{number}")["member"][judged]))
        reached[name] = np.mean(values)
    error = 0.045 / np.sqrt(case.size)  # about that of an AUC of 135 members and 135 others
    require(reached["ours"] >= reached["ART"] - 2 * error, f"our AUC is lower: {reached}")
    return "mean AUC: " + ", ".join(f"{name} {value:.3f}" for name, value in reached.items())
