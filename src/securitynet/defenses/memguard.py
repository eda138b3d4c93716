"""Noise on the posteriors that misleads a membership classifier: MemGuard (Jia et al., CCS 2019)."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, PrivateAttr
from torch import nn
from torch.nn import functional
from typing_extensions import override

from securitynet.defenses.base import OutputDefense
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.sources.weights import state_checksum
from securitynet.models.targets import heads
from securitynet.models.targets.interface import Interface
from securitynet.models.targets.target import Target
from securitynet.randomness import derive_seed, isolate_random_state, make_generator

_ROWS = 256
"""Rows in one search for noise. Smaller batches are padded: the noise of a row must not depend on the other rows."""

_LABEL_WEIGHT = 10.0  # c2 of the paper
_DISTORTION_WEIGHTS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)  # c3: ten times larger as long as the search succeeds
_STEP = 0.1  # beta of the paper


class MemGuard(OutputDefense):
    """The owner trains a membership classifier on sorted posteriors, and adds noise that makes it undecided.

    For each record, phase 1 (algorithm 1) searches for the smallest noise that moves the classifier to one half and
    keeps the predicted class. Phase 2 adds it with the probability that uses up the distortion budget. Noise and
    probability depend on the posteriors alone, so that repeated queries reveal nothing more.

    The classifier is trained on the members and on the known non-members of the split; if there are none, on half of
    the non-members.
    """

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"budget": 1.0},)

    budget: float = Field(
        default=1.0, gt=0, le=2, description="Largest expected L1 distance between true and returned posteriors."
    )
    steps: int = Field(default=300, ge=1, description="Steps of the search for noise, per weight of the distortion.")
    epochs: int = Field(default=100, ge=1, description="Passes over the training records of the classifier.")
    learning_rate: float = Field(
        default=1e-3, gt=0, allow_inf_nan=False, description="Learning rate of the classifier."
    )

    @override
    def interface(self, target: Target, data: TrialData, context: Context) -> Interface:
        splits = data.splits
        outside = splits.known_non_members if len(splits.known_non_members) else splits.non_members[::2]
        signals = context.signals(target, data, np.union1d(splits.members, outside))
        is_member = np.isin(signals.indices, splits.members)
        if not is_member.any() or is_member.all():
            raise ConfigurationError("MemGuard needs members and non-members to train its classifier on.")
        classifier = self._train_classifier(
            torch.from_numpy(signals.posteriors), torch.from_numpy(is_member), context.seed
        )
        made = MemGuardInterface(budget=self.budget, steps=self.steps, seed=context.seed)
        made._classifier = classifier
        return made

    def _train_classifier(self, posteriors: torch.Tensor, is_member: torch.Tensor, seed: int) -> nn.Module:
        """Train the classifier: sorted posteriors to the logit of "member" (section 5.1: 256, 128 and 64 units).

        Members and non-members have the same total weight.
        """
        inputs = posteriors.sort(dim=1, descending=True).values
        truth = is_member.float()
        weights = torch.where(is_member, 0.5 / truth.mean(), 0.5 / (1 - truth.mean()))
        with isolate_random_state(), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(derive_seed(seed, "memguard classifier"))
            widths = (inputs.shape[1], 256, 128, 64)
            layers: list[nn.Module] = []
            for width_in, width in itertools.pairwise(widths):
                layers += [nn.Linear(width_in, width), nn.ReLU()]
            network = nn.Sequential(*layers, nn.Linear(64, 1))
            optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
            for epoch in range(self.epochs):
                order = torch.randperm(len(inputs), generator=make_generator(seed, "memguard order", epoch))
                for rows in torch.split(order, 64):
                    optimizer.zero_grad(set_to_none=True)
                    scores = network(inputs[rows]).squeeze(1)
                    loss = functional.binary_cross_entropy_with_logits(scores, truth[rows], weight=weights[rows])
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        return network.eval().requires_grad_(False)


class MemGuardInterface(Interface):
    """Adds MemGuard's noise to posteriors.

    Attributes:
        budget: Largest expected L1 distance, in (0, 2].
        steps: Steps of the search for noise.
        seed: Determines, together with the posteriors, whether noise is added.
    """

    budget: float
    steps: int
    seed: int
    _classifier: nn.Module = PrivateAttr()
    _known: dict[bytes, torch.Tensor] = PrivateAttr(default_factory=dict)

    @override
    def describe(self) -> str:
        return f"posteriors with MemGuard's noise, budget {self.budget:g}"

    @override
    def canonical(self) -> dict[str, Any]:
        """Settings and a checksum of the classifier, because it determines the outputs as well."""
        classifier = state_checksum(self._classifier.state_dict(), "memguard")
        return {**super().canonical(), "version": 2, "classifier": classifier}

    @override
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        posteriors = posteriors.float().contiguous()
        keys = [row.tobytes() for row in posteriors.numpy()]
        fresh = {key: number for number, key in enumerate(keys) if key not in self._known}
        unknown = list(fresh.values())
        for start in range(0, len(unknown), _ROWS):
            numbers = unknown[start : start + _ROWS]
            rows = posteriors[numbers]
            full = torch.cat([rows, rows[-1:].expand(_ROWS - len(rows), -1)])
            for number, changed in zip(numbers, self._add_noise(full), strict=False):
                self._known[keys[number]] = changed
        return torch.stack([self._known[key] for key in keys]) if keys else posteriors

    def _add_noise(self, posteriors: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            noisy = self._search(posteriors.clone())
        return self._choose_rows(posteriors, noisy)

    def _choose_rows(self, posteriors: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
        """Phase 2: for each row, the posteriors with or without noise, by the row's own random number."""
        add = self._draws(posteriors) < self._chances(posteriors, noisy)
        return torch.where(add.unsqueeze(1), noisy, posteriors)

    def _chances(self, posteriors: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
        """Probability of adding the noise, N: the largest within the budget; 0 where the noise does not help."""
        distance = (noisy - posteriors).abs().sum(dim=1)
        helps = self._confidence(noisy) < self._confidence(posteriors)
        return torch.where(helps, (self.budget / distance.clamp_min(1e-12)).clamp(max=1), 0.0)

    def _score(self, posteriors: torch.Tensor) -> torch.Tensor:
        """Logit of "member", N."""
        scores: torch.Tensor = self._classifier(posteriors.sort(dim=1, descending=True).values).squeeze(1)
        return scores

    def _confidence(self, posteriors: torch.Tensor) -> torch.Tensor:
        """Distance of the classifier from one half, N."""
        with torch.no_grad():
            return (self._score(posteriors).sigmoid() - 0.5).abs()

    def _search(self, posteriors: torch.Tensor) -> torch.Tensor:
        """Phase 1: posteriors with the noise of the largest distortion weight for which the search succeeds, N×K."""
        logits = heads.to_logits(posteriors, "probabilities")
        label = posteriors.argmax(dim=1, keepdim=True)
        side = self._score(posteriors).sign()
        best, open_ = posteriors.clone(), torch.ones(len(posteriors), dtype=torch.bool)
        for weight in _DISTORTION_WEIGHTS:
            noisy, success = self._descend(posteriors, logits, label, side, weight, open_)
            open_ &= success  # a weight that is too large for a row rules out larger ones
            if not bool(open_.any()):
                break
            best = torch.where(open_.unsqueeze(1), noisy, best)
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
        """Follow the normalised gradient until the classifier's decision flips while the label stays the same.

        Args:
            posteriors: N×K.
            logits: N×K.
            label: Predicted classes, N×1.
            side: Sign of the classifier's initial score, N.
            weight: Weight of the distortion.
            wanted: Rows for which noise is still needed, N.

        Returns:
            Posteriors with noise, N×K, and whether the search succeeded, N.
        """
        origin = logits.softmax(dim=1)  # recomputed bit for bit, so that zero noise has zero distortion and no gradient
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
                if bool((success | ~wanted).all()):
                    break
            distortion = (noisy - origin).abs().sum(dim=1)
            loss = score.abs() + _LABEL_WEIGHT * functional.relu(others - own) + weight * distortion
            (gradient,) = torch.autograd.grad(loss.sum(), noise)
            norm = gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)
            noise = (noise - _STEP * gradient / norm).detach().requires_grad_()
        return result.detach(), success

    def _draws(self, posteriors: torch.Tensor) -> torch.Tensor:
        """A number in [0, 1) per row, determined by row and seed, so that repeated queries get the same output."""
        key = derive_seed(self.seed, "memguard draws").to_bytes(8, "little")
        # Rounded first: the last bits may differ between machines and batch sizes.
        rows = (posteriors.double() * 1e5).round().to(torch.int64).numpy()
        digests = [hashlib.blake2b(row.tobytes(), digest_size=8, key=key).digest() for row in rows]
        return torch.tensor([int.from_bytes(digest, "little") / 2**64 for digest in digests], dtype=torch.float32)
