"""Knockoff Nets: learn from rewards which classes of auxiliary images are worth asking about.

Orekondy et al., "Knockoff Nets: stealing functionality of black-box models" (2019), section 5.1.2: a gradient bandit
whose actions are the auxiliary data's own classes, rewarded for answers that are certain, diverse, and surprising to
the surrogate.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator

from securitynet.attacks.stealing._active import ActiveStealing, Known, joined, outputs_of
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.models.targets.target import Target
from securitynet.randomness import generator

Reward = Literal["certainty", "diversity", "loss"]
REWARDS: tuple[Reward, ...] = ("certainty", "diversity", "loss")

WINDOW = 25
"""Questions whose rewards, and answers, the next ones are compared with (the paper's Δ)."""


class KnockoffStealing(ActiveStealing):
    """The adaptive strategy; other than in the paper, the surrogate is trained anew after each round of questions."""

    rewards: tuple[Reward, ...] = Field(
        default=REWARDS,
        description="Summed: certainty (margin of the answer), diversity (answers unlike the last ones), loss (the "
        "surrogate's, on the answer).",
    )
    batch: int = Field(default=16, ge=1, description="Questions between two updates of the policy.")

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

    def check_answers(self, target: Target) -> None:
        """See `ActiveStealing.check_answers`: a margin is no reward where only labels are answered."""
        if target.head == "labels" and "certainty" in self.rewards:
            raise AccessDenied(
                "The certainty reward needs posteriors, and this interface tells labels only.",
                hint="Set rewards='diversity loss'.",
            )

    def choose(self, known: Known, selector: Target, number: int) -> None:
        """See `ActiveStealing.choose`."""
        rest = known.rest()
        labels = known.pool.dataset.labels[rest]
        bandit, history = self._learned(known)
        left = {int(label): deque(rest[labels == label].tolist()) for label in np.unique(labels)}
        draws = generator(known.context.seed, "knockoff", known.count)
        while number > 0:
            size = min(self.batch, number)
            actions, drawn = [], []
            for _ in range(size):
                actions.append(bandit.draw(left, draws))
                drawn.append(left[actions[-1]].popleft())
            records = np.asarray(drawn, dtype=np.int64)
            answers = as_posteriors(known.ask(records), known.classes)
            predicted = outputs_of(selector, known.pool, records).logits
            for action, answer, logits in zip(actions, answers, predicted, strict=True):
                bandit.update(action, *history.reward(answer, logits))
            number -= size

    def _learned(self, known: Known) -> tuple[GradientBandit, RewardHistory]:
        """The policy and the rewards as earlier rounds left them."""
        if not known.memory:
            history = RewardHistory(self.rewards)
            for row in as_posteriors(joined(known.answers), known.classes)[-WINDOW:]:
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
        """An action of the policy, among those that have images left."""
        policy = self.policy() * [bool(left.get(action)) for action in range(len(self.preferences))]
        if policy.sum() <= 0:
            policy = np.asarray([float(len(left.get(action, ()))) for action in range(len(self.preferences))])
        edges = np.cumsum(policy) / policy.sum()
        at = float(torch.rand((), generator=draws, dtype=torch.float64))
        chosen = int(np.searchsorted(edges, at, side="right"))
        return chosen if left.get(chosen) else int(np.flatnonzero(policy)[-1])

    def update(self, action: int, reward: float, baseline: float) -> None:
        """Equation 4 of Knockoff Nets, with the step size 1 / (how often the action was taken)."""
        self.taken[action] += 1
        step = (reward - baseline) / self.taken[action]
        policy = self.policy()
        self.preferences -= step * policy
        self.preferences[action] += step


class RewardHistory:
    """Rewards of answers, each kind scaled to [0, 1] by what was seen so far, and their recent mean."""

    def __init__(self, kinds: tuple[Reward, ...]) -> None:
        self.kinds = kinds
        self._answers: deque[NDArray[np.float64]] = deque(maxlen=WINDOW)
        self._rewards: deque[float] = deque(maxlen=WINDOW)
        self._low = np.full(len(kinds), np.inf)
        self._high = np.full(len(kinds), -np.inf)

    def note(self, answer: NDArray[np.floating]) -> None:
        """Remember an answer for which there is no reward."""
        self._answers.append(answer.astype(np.float64))

    def reward(self, answer: NDArray[np.floating], logits: NDArray[np.floating]) -> tuple[float, float]:
        """The reward of an answer, in [0, number of kinds], and the mean of the rewards before it.

        Args:
            answer: The target's posteriors, K.
            logits: The surrogate's logits for the same image, K.
        """
        exact = np.asarray(answer, dtype=np.float64)
        raw = np.asarray([self._raw(kind, exact, logits) for kind in self.kinds])
        self._low, self._high = np.minimum(self._low, raw), np.maximum(self._high, raw)
        span = self._high - self._low
        scaled = np.where(span > 0, (raw - self._low) / np.where(span > 0, span, 1), 0.5)
        total = float(scaled.sum())
        baseline = float(np.mean(self._rewards)) if self._rewards else total
        self._rewards.append(total)
        self.note(exact)
        return total, baseline

    def _raw(self, kind: Reward, answer: NDArray[np.float64], logits: NDArray[np.floating]) -> float:
        if kind == "certainty":
            second, first = np.sort(answer)[-2:]
            return float(first - second)
        if kind == "diversity":
            mean = np.mean(self._answers, axis=0) if self._answers else answer
            return float(np.maximum(answer - mean, 0).sum())
        shifted = logits.astype(np.float64) - float(logits.max())
        log_posteriors = shifted - np.log(np.exp(shifted).sum())
        return float(-(answer * log_posteriors).sum())


def as_posteriors(answers: NDArray[np.float32] | NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Answers as rows of posteriors: labels become rows with a single 1."""
    return answers.astype(np.float64) if answers.ndim == 2 else np.eye(classes)[answers]
