"""Knockoff Nets: learn from rewards which classes of auxiliary images are worth querying.

Orekondy et al., "Knockoff Nets: stealing functionality of black-box models" (2019), section 5.1.2: a gradient bandit
whose actions are the classes of the auxiliary data. Outputs of the target are rewarded if they are confident, diverse,
and poorly predicted by the surrogate.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from typing_extensions import override

from securitynet.attacks.stealing._active import ActiveStealing, Known, compute_outputs, join_outputs
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.models.targets.target import Target
from securitynet.randomness import make_generator

Reward = Literal["certainty", "diversity", "loss"]
REWARDS: tuple[Reward, ...] = ("certainty", "diversity", "loss")

WINDOW = 25
"""Number of recent queries with whose rewards and outputs the next ones are compared (the paper's Δ)."""


class KnockoffStealing(ActiveStealing):
    """The adaptive strategy. Unlike in the paper, the surrogate is trained from fresh weights after each round."""

    rewards: tuple[Reward, ...] = Field(
        default=REWARDS,
        description="Summed: certainty (margin of the output), diversity (outputs unlike the last ones), loss (the "
        "surrogate's, on the output).",
    )
    batch: int = Field(default=16, ge=1, description="Queries between two updates of the policy.")

    @field_validator("rewards", mode="before")
    @classmethod
    def _read(cls, value: object) -> object:
        return value.replace("+", " ").split() if isinstance(value, str) else value

    @field_validator("rewards")
    @classmethod
    def _some(cls, value: tuple[Reward, ...]) -> tuple[Reward, ...]:
        if not value:
            raise ConfigurationError(
                "Without a reward there is nothing to learn.", hint=f"Known: {', '.join(REWARDS)}."
            )
        return tuple(dict.fromkeys(value))

    def check_interface(self, target: Target) -> None:
        """Raise `AccessDenied` if the certainty reward is used and the interface returns labels only."""
        if target.head == "labels" and "certainty" in self.rewards:
            raise AccessDenied(
                "The certainty reward needs posteriors, and this interface returns labels only.",
                hint="Set rewards='diversity loss'.",
            )

    @override
    def choose(self, known: Known, selector: Target, number: int) -> None:
        rest = known.rest()
        labels = known.pool.dataset.labels[rest]
        bandit, history = self._learned(known)
        left = {int(label): deque(rest[labels == label].tolist()) for label in np.unique(labels)}
        draws = make_generator(known.context.seed, "knockoff", known.count)
        while number > 0:
            size = min(self.batch, number)
            actions, drawn = [], []
            for _ in range(size):
                actions.append(bandit.draw(left, draws))
                drawn.append(left[actions[-1]].popleft())
            records = np.asarray(drawn, dtype=np.int64)
            posteriors = as_posteriors(known.query(records), known.classes)
            predicted = compute_outputs(selector, known.pool, records).logits
            for action, posterior, logits in zip(actions, posteriors, predicted, strict=True):
                bandit.update(action, *history.reward(posterior, logits))
            number -= size

    def _learned(self, known: Known) -> tuple[GradientBandit, RewardHistory]:
        """Return the policy and the rewards as the earlier rounds left them."""
        if not known.memory:
            history = RewardHistory(self.rewards)
            for row in as_posteriors(join_outputs(known.outputs), known.classes)[-WINDOW:]:
                history.note(row)
            known.memory["bandit"] = GradientBandit(int(known.pool.dataset.labels.max()) + 1)
            known.memory["history"] = history
        return known.memory["bandit"], known.memory["history"]


class GradientBandit:
    """Preferences over actions, moved along the policy's gradient (Sutton and Barto, 2018, section 2.8)."""

    def __init__(self, actions: int) -> None:
        self.preferences = np.zeros(actions)
        self.taken = np.zeros(actions, dtype=np.int64)

    def policy(self) -> NDArray[np.float64]:
        """Probabilities of actions: softmax of the preferences."""
        weights = np.exp(self.preferences - self.preferences.max())
        return np.asarray(weights / weights.sum())

    def draw(self, left: dict[int, deque[int]], draws: torch.Generator) -> int:
        """Draw an action from the policy, among those that have images left."""
        policy = self.policy() * [bool(left.get(action)) for action in range(len(self.preferences))]
        if policy.sum() <= 0:
            policy = np.asarray([float(len(left.get(action, ()))) for action in range(len(self.preferences))])
        edges = np.cumsum(policy) / policy.sum()
        at = float(torch.rand((), generator=draws, dtype=torch.float64))
        chosen = int(np.searchsorted(edges, at, side="right"))
        return chosen if left.get(chosen) else int(np.flatnonzero(policy)[-1])

    def update(self, action: int, reward: float, baseline: float) -> None:
        """Equation 4 of Knockoff Nets, with the step size 1 / (how often the action was taken).

        Args:
            action: Position of the class that was queried.
            reward: Reward of the queried image.
            baseline: Mean of the rewards so far.
        """
        self.taken[action] += 1
        step = (reward - baseline) / self.taken[action]
        policy = self.policy()
        self.preferences -= step * policy
        self.preferences[action] += step


class RewardHistory:
    """Rewards of the target's outputs, each kind scaled to [0, 1] by the range seen so far, and their recent mean."""

    def __init__(self, kinds: tuple[Reward, ...]) -> None:
        self.kinds = kinds
        self._query: deque[NDArray[np.float64]] = deque(maxlen=WINDOW)
        self._rewards: deque[float] = deque(maxlen=WINDOW)
        self._low = np.full(len(kinds), np.inf)
        self._high = np.full(len(kinds), -np.inf)

    def note(self, posterior: NDArray[np.floating]) -> None:
        """Remember an output for which no reward is computed."""
        self._query.append(posterior.astype(np.float64))

    def reward(self, posterior: NDArray[np.floating], logits: NDArray[np.floating]) -> tuple[float, float]:
        """Return the reward of an output, in [0, number of kinds], and the mean of the rewards before it.

        Args:
            posterior: The target's posteriors, K.
            logits: The surrogate's logits for the same image, K.
        """
        exact = np.asarray(posterior, dtype=np.float64)
        raw = np.asarray([self._raw(kind, exact, logits) for kind in self.kinds])
        self._low, self._high = np.minimum(self._low, raw), np.maximum(self._high, raw)
        span = self._high - self._low
        scaled = np.where(span > 0, (raw - self._low) / np.where(span > 0, span, 1), 0.5)
        total = float(scaled.sum())
        baseline = float(np.mean(self._rewards)) if self._rewards else total
        self._rewards.append(total)
        self.note(exact)
        return total, baseline

    def _raw(self, kind: Reward, posterior: NDArray[np.float64], logits: NDArray[np.floating]) -> float:
        if kind == "certainty":
            second, first = np.sort(posterior)[-2:]
            return float(first - second)
        if kind == "diversity":
            mean = np.mean(self._query, axis=0) if self._query else posterior
            return float(np.maximum(posterior - mean, 0).sum())
        shifted = logits.astype(np.float64) - float(logits.max())
        log_posteriors = shifted - np.log(np.exp(shifted).sum())
        return float(-(posterior * log_posteriors).sum())


def as_posteriors(outputs: NDArray[np.float32] | NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Return outputs as rows of posteriors, N×K; labels become rows with a single 1."""
    return outputs.astype(np.float64) if outputs.ndim == 2 else np.eye(classes)[outputs]
