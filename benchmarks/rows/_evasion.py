"""What the rows on FGSM and PGD share: one attack at one setting, by each tool, and the arithmetic alone."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np

from harness.row import AtMost, Case, Faster, Row, near, require
from rows import _material
from rows._torchvision import imported

BATCH = 64
"""Images a batch, for those who take a batch size."""

AIMS = (AtMost(1.1, "bare loop"), Faster(1, "torchattacks"), Faster(1, "foolbox"), Faster(1, "ART"))


def evasion_row(
    title: str, sizes: tuple[int, ...], *, epsilon: float, steps: int, step: float, allowance: float
) -> Row:
    """A row on one attack.

    Args:
        title: Of the row.
        sizes: Images.
        epsilon: Bound in L∞.
        steps: 1 is FGSM, which takes the whole bound in one step.
        step: Size of each.
        allowance: See `Row`.
    """
    row = Row(title, unit="images", sizes=sizes, aims=AIMS, rounds=5, allowance=allowance, devices=("cpu", "cuda"))
    row.inputs(lambda case: _material.write(case, case.size))

    @row.side("ours")
    def ours(case: Case) -> Callable:
        from securitynet.attacks.evasion._gradient import LOSSES, compute_signs, iterate, take_step
        from securitynet.models.targets.input_gradients import InputGradients

        target = _material.target(case)
        images, labels = _material.images(case)
        take = InputGradients(target, loss=LOSSES["cross-entropy"])

        def run() -> dict:
            if steps == 1:
                return _told(take_step(images, compute_signs(take, images, labels).signs, epsilon))
            settings = {"epsilon": epsilon, "norm": "linf", "steps": steps, "step": step, "stop_early": False}
            return _told(iterate(take, images, labels, start=images, **settings)[0])

        return run

    @row.side("bare loop")
    def bare_loop(case: Case) -> Callable:
        """Forward, backward to the images, step and clipping on the frozen, folded network, in the best batch size."""
        import torch
        from torch.nn.functional import cross_entropy

        network = _material.target(case).module
        images, labels = _material.images(case)
        size = len(images) if case.device != "cpu" else BATCH // 2

        def run() -> dict:
            found = []
            for part, truth in zip(images.split(size), labels.split(size), strict=True):
                now = part
                for _ in range(steps):
                    leaf = now.detach().requires_grad_()
                    (gradient,) = torch.autograd.grad(cross_entropy(network(leaf), truth), leaf)
                    moved = now + step * gradient.sign()
                    now = torch.clamp(moved, part - epsilon, part + epsilon).clamp_(0, 1)
                found.append(now)
            return _told(torch.cat(found))

        return run

    @row.side("torchattacks", environment="torchattacks")
    def torchattacks(case: Case) -> Callable:
        import torch

        tool = imported("torchattacks")
        network = _material.network(case)
        images, labels = _material.images(case)
        if steps == 1:
            attack = tool.FGSM(network, eps=epsilon)
        else:
            attack = tool.PGD(network, eps=epsilon, alpha=step, steps=steps, random_start=False)
        parts = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))
        return lambda: _told(torch.cat([attack(part, truth) for part, truth in parts]))

    @row.side("foolbox", environment="foolbox")
    def foolbox(case: Case) -> Callable:
        import torch

        tool = importlib.import_module("foolbox")
        model = tool.PyTorchModel(_material.network(case), bounds=(0, 1), device=case.device)
        images, labels = _material.images(case)
        if steps == 1:
            attack = tool.attacks.LinfFastGradientAttack(random_start=False)
        else:
            attack = tool.attacks.LinfPGD(abs_stepsize=step, steps=steps, random_start=False)
        parts = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))

        def run() -> dict:
            return _told(torch.cat([attack(model, part, truth, epsilons=epsilon)[1] for part, truth in parts]))

        return run

    @row.side("ART", environment="art")
    def art(case: Case) -> Callable:
        import torch

        evasion = importlib.import_module("art.attacks.evasion")
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            _material.network(case),
            torch.nn.CrossEntropyLoss(),
            input_shape=(3, 32, 32),
            nb_classes=10,
            clip_values=(0.0, 1.0),
            device_type="cpu" if case.device == "cpu" else "gpu",
        )
        images, labels = _material.images(case)
        pixels, truth = images.cpu().numpy(), np.eye(10, dtype=np.float32)[labels.cpu().numpy()]
        if steps == 1:
            attack = evasion.FastGradientMethod(classifier, eps=epsilon, batch_size=BATCH)
        else:
            attack = evasion.ProjectedGradientDescentPyTorch(
                classifier, eps=epsilon, eps_step=step, max_iter=steps, batch_size=BATCH, verbose=False
            )
        return lambda: {"examples": attack.generate(pixels, truth)}

    @row.check
    def check(case: Case, found: dict) -> str:
        """All sides change the same pixels where the cross-entropy has a gradient.

        Where the posterior of the label is 1 but for 1e-4, single precision loses digits of the gradient: ours follows
        the log-odds there, the others follow what is left. Those images are compared with a step in double precision.
        Pixels whose gradient is 0 but for rounding may take either sign, and each step of PGD can add some.
        """
        import torch

        network = _material.network(case)
        images, labels = _material.images(case)

        def success(examples: np.ndarray) -> float:
            with torch.inference_mode():
                answers = network(torch.from_numpy(examples).to(case.device)).argmax(dim=1)
            return float((answers != labels).float().mean())

        mine = found["ours"]["examples"]
        reached = success(mine)
        exact, others = _step_in_double(network, images, labels, epsilon)
        confident = others < CONFIDENT
        far = _share(mine, exact, slice(None)) if steps == 1 else 0.0
        require(far <= 0.01, f"{100 * far:.2g}% of our pixels differ from those of a step in double precision")
        told = []
        for name, side in found.items():
            require(side["examples"].min() >= 0 and side["examples"].max() <= 1, f"examples of {name} leave [0, 1]")
            near(mine, side["examples"], 2 * epsilon + 1e-5, f"examples of {name}")
            apart = _share(mine, side["examples"], ~confident)
            require(apart <= 0.01 * steps, f"{100 * apart:.2g}% of the pixels differ from those of {name}")
            require(success(side["examples"]) <= reached + 0.02, f"{name} succeeds more often than ours")
            if name == "bare loop" or not confident.any():
                near(success(side["examples"]), reached, 0.02 + confident.mean(), f"success of {name}")
            if name != "ours":
                told.append(f"{name} {100 * apart:.2g}% (success {success(side['examples']):.3f})")
        words = f"success {reached:.3f}; pixels that differ by more than 1e-5: " + ", ".join(told)
        if steps == 1:
            words += f"; from a step in double precision: ours {100 * far:.2g}%, " + ", ".join(
                f"{name} {100 * _share(side['examples'], exact, slice(None)):.2g}%"
                for name, side in found.items()
                if name != "ours"
            )
        return f"{words}. Of the images, {100 * confident.mean():.1f}% have a posterior above 1 - {CONFIDENT:g}"

    return row


CONFIDENT = 1e-4
"""Where 1 - p is below this, sides are not compared with one another: see the check."""


def _share(first: np.ndarray, second: np.ndarray, which: object) -> float:
    """Share of the pixels of ``which`` images that differ by more than rounding."""
    return float((np.abs(first[which] - second[which]) > 1e-5).mean()) if len(first[which]) else 0.0  # type: ignore[index]


def _step_in_double(network, images, labels, epsilon: float) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """One step with gradients in double precision, and 1 - p of each image."""
    import copy

    import torch

    leaf = images.double().requires_grad_()
    logits = copy.deepcopy(network).double()(leaf)
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"), leaf)
    moved = (images.double() + epsilon * gradient.sign()).clamp(0, 1)
    of_label = torch.nn.functional.one_hot(labels, logits.shape[1]).bool()
    others = logits.detach().softmax(dim=1).masked_fill(of_label, 0).sum(dim=1)
    return moved.float().cpu().numpy(), others.cpu().numpy()


def _told(examples: object) -> dict:
    return {"examples": examples.detach().cpu().numpy()}  # type: ignore[attr-defined]
