"""Posteriors with noise that misleads a membership classifier: MemGuard (Jia et al., CCS 2019)."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, PrivateAttr
from torch import nn
from torch.nn import functional

from securitynet.defenses.base import OutputDefense
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.sources.weights import state_checksum
from securitynet.models.targets import heads
from securitynet.models.targets.interface import Interface
from securitynet.models.targets.target import Target
from securitynet.randomness import derived_seed, generator, isolated

_ROWS = 256
"""Rows that noise is searched for at once. Fewer are filled up: a row's noise must not depend on its company."""

_LABEL_WEIGHT = 10.0  # c2 of the paper
_DISTORTION_WEIGHTS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)  # c3: tenfold while noise is found
_STEP = 0.1  # beta of the paper


class MemGuard(OutputDefense):
    """The owner trains a classifier that tells members by their sorted posteriors, and answers what it cannot tell.

    For each record, noise is searched that brings the classifier to one half, keeps the predicted class, and distorts
    as little as possible (phase 1, algorithm 1). It is added with the probability that uses up the distortion budget
    (phase 2). Probability and noise follow from the posteriors alone, so that asking again tells nothing.

    The classifier learns from the members and from the non-members that the split names as known; where there are none,
    from half of the non-members.
    """

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"budget": 1.0},)

    budget: float = Field(
        default=1.0, gt=0, le=2, description="Expected L1 distance between posteriors and answers, at most."
    )
    steps: int = Field(default=300, ge=1, description="Steps of the search for noise, for each weight of distortion.")
    epochs: int = Field(default=100, ge=1, description="Passes over the records that the classifier learns from.")
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="Of the classifier, by Adam.")

    def interface(self, target: Target, data: TrialData, context: Context) -> Interface:
        """See `OutputDefense.interface`."""
        splits = data.splits
        outside = splits.known_non_members if len(splits.known_non_members) else splits.non_members[::2]
        signals = context.signals(target, data, np.union1d(splits.members, outside))
        is_member = np.isin(signals.indices, splits.members)
        if not is_member.any() or is_member.all():
            raise ConfigurationError("MemGuard needs members and non-members to train its classifier on.")
        classifier = self._classifier(torch.from_numpy(signals.posteriors), torch.from_numpy(is_member), context.seed)
        made = MemGuardInterface(budget=self.budget, steps=self.steps, seed=context.seed)
        made._classifier = classifier
        return made

    def _classifier(self, posteriors: torch.Tensor, is_member: torch.Tensor, seed: int) -> nn.Module:
        """Logit of "member" from sorted posteriors; both groups count alike (section 5.1: 256, 128 and 64 units)."""
        inputs = posteriors.sort(dim=1, descending=True).values
        truth = is_member.float()
        weights = torch.where(is_member, 0.5 / truth.mean(), 0.5 / (1 - truth.mean()))
        with isolated(), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(derived_seed(seed, "memguard classifier"))
            widths = (inputs.shape[1], 256, 128, 64)
            layers: list[nn.Module] = []
            for width_in, width in itertools.pairwise(widths):
                layers += [nn.Linear(width_in, width), nn.ReLU()]
            network = nn.Sequential(*layers, nn.Linear(64, 1))
            optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
            for epoch in range(self.epochs):
                order = torch.randperm(len(inputs), generator=generator(seed, "memguard order", epoch))
                for rows in torch.split(order, 64):
                    optimizer.zero_grad(set_to_none=True)
                    found = network(inputs[rows]).squeeze(1)
                    loss = functional.binary_cross_entropy_with_logits(found, truth[rows], weight=weights[rows])
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        return network.eval().requires_grad_(False)


class MemGuardInterface(Interface):
    """Answers with MemGuard's noise.

    Attributes:
        budget: Expected L1 distance, at most.
        steps: Of the search.
        seed: Decides, with the posteriors, whether noise is added.
    """

    budget: float
    steps: int
    seed: int
    _classifier: nn.Module = PrivateAttr()
    _known: dict[bytes, torch.Tensor] = PrivateAttr(default_factory=dict)

    def describe(self) -> str:
        """See `Interface.describe`."""
        return f"posteriors with MemGuard's noise, budget {self.budget:g}"

    def canonical(self) -> dict[str, Any]:
        """See `Interface.canonical`: the classifier decides the answers, too."""
        classifier = state_checksum(self._classifier.state_dict(), "memguard")
        return {**super().canonical(), "version": 2, "classifier": classifier}

    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        """See `Interface.change`."""
        posteriors = posteriors.float().contiguous()
        keys = [row.tobytes() for row in posteriors.numpy()]
        fresh = {key: number for number, key in enumerate(keys) if key not in self._known}
        unknown = list(fresh.values())
        for start in range(0, len(unknown), _ROWS):
            numbers = unknown[start : start + _ROWS]
            rows = posteriors[numbers]
            full = torch.cat([rows, rows[-1:].expand(_ROWS - len(rows), -1)])
            for number, answer in zip(numbers, self._answer(full), strict=False):
                self._known[keys[number]] = answer
        return torch.stack([self._known[key] for key in keys]) if keys else posteriors

    def _answer(self, posteriors: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            noisy = self._search(posteriors.clone())
        return self._answer_with(posteriors, noisy)

    def _answer_with(self, posteriors: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
        """Phase 2: one of the two for each row, by the row's own draw."""
        add = self._draws(posteriors) < self._chances(posteriors, noisy)
        return torch.where(add.unsqueeze(1), noisy, posteriors)

    def _chances(self, posteriors: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
        """Probability that the noise is added, N: the largest within the budget, if it serves its end."""
        distance = (noisy - posteriors).abs().sum(dim=1)
        serves = self._doubt(noisy) < self._doubt(posteriors)
        return torch.where(serves, (self.budget / distance.clamp_min(1e-12)).clamp(max=1), 0.0)

    def _score(self, posteriors: torch.Tensor) -> torch.Tensor:
        """Logit of "member", N."""
        found: torch.Tensor = self._classifier(posteriors.sort(dim=1, descending=True).values).squeeze(1)
        return found

    def _doubt(self, posteriors: torch.Tensor) -> torch.Tensor:
        """How far the classifier is from one half, N."""
        with torch.no_grad():
            return (self._score(posteriors).sigmoid() - 0.5).abs()

    def _search(self, posteriors: torch.Tensor) -> torch.Tensor:
        """Phase 1: the posteriors with the noise found under the largest weight of distortion that allows any, N×K."""
        logits = heads.to_logits(posteriors, "probabilities")
        label = posteriors.argmax(dim=1, keepdim=True)
        side = self._score(posteriors).sign()
        best, open_ = posteriors.clone(), torch.ones(len(posteriors), dtype=torch.bool)
        for weight in _DISTORTION_WEIGHTS:
            found, success = self._descend(posteriors, logits, label, side, weight, open_)
            open_ &= success  # once a weight is too large for a row, larger ones are, too
            if not bool(open_.any()):
                break
            best = torch.where(open_.unsqueeze(1), found, best)
        return best

    def _descend(
        self,
        posteriors: torch.Tensor,
        logits: torch.Tensor,
        label: torch.Tensor,
        side: torch.Tensor,
        weight: float,
        wanted: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Steps of normalised gradient until the classifier's decision turns and the label is kept.

        Returns:
            Posteriors with noise, N×K, and whether they are what was wanted, N.
        """
        origin = logits.softmax(dim=1)  # to the last bit: the distortion has no direction where there is none
        noise = torch.zeros_like(logits, requires_grad=True)
        result, success = posteriors.clone(), torch.zeros(len(posteriors), dtype=torch.bool)
        for _ in range(self.steps):
            moved = logits + noise
            noisy = moved.softmax(dim=1)
            score = self._score(noisy)
            others = moved.scatter(1, label, -torch.inf).amax(dim=1)
            own = moved.gather(1, label).squeeze(1)
            with torch.no_grad():
                reached = ~success & (score * side <= 0) & (own > others)
                result = torch.where(reached.unsqueeze(1), noisy, result)
                success |= reached
                if bool((success | ~wanted).all()):  # nothing that is looked at is left to be found
                    break
            distortion = (noisy - origin).abs().sum(dim=1)
            loss = score.abs() + _LABEL_WEIGHT * functional.relu(others - own) + weight * distortion
            (gradient,) = torch.autograd.grad(loss.sum(), noise)
            norm = gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)
            noise = (noise - _STEP * gradient / norm).detach().requires_grad_()
        return result.detach(), success

    def _draws(self, posteriors: torch.Tensor) -> torch.Tensor:
        """A number in [0, 1) for each row, which row and seed decide: the same answer each time a record is asked."""
        key = derived_seed(self.seed, "memguard draws").to_bytes(8, "little")
        # Rounded first: the last bits may differ between machines and batch sizes.
        rows = (posteriors.double() * 1e5).round().to(torch.int64).numpy()
        digests = [hashlib.blake2b(row.tobytes(), digest_size=8, key=key).digest() for row in rows]
        return torch.tensor([int.from_bytes(digest, "little") / 2**64 for digest in digests], dtype=torch.float32)
