"""The schedule of Neural Cleanse's weight on the mask's norm, for many labels at once (Wang et al., 2019, V-A).

The weight starts at 0. When a label's trigger has worked for ``patience`` epochs in a row, it is set to its first
value; from then on it is multiplied after as many epochs of success in a row, and divided (by the multiplier to the
power 1.5) after as many of failure. What counts when, and which counters are reset by what, follows the authors'
program.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from securitynet.records import Record


class CostRules(Record):
    """The constants of the schedule.

    Attributes:
        initial: First value of the weight.
        threshold: Share of images, from which on a trigger works.
        patience: Epochs in a row.
        multiplier: Of the weight on success.
        stop_ratio: An epoch is no progress if the best norm is at least so many times the best before.
        stop_patience: Epochs without progress after which a label is finished, once its weight has been raised and
            lowered; None never finishes early.
    """

    initial: float
    threshold: float
    patience: int
    multiplier: float
    stop_ratio: float
    stop_patience: int | None


@dataclass(eq=False)
class Costs:
    """Weights and counters of L labels, each a tensor of L on the CPU."""

    rules: CostRules
    cost: torch.Tensor
    set_count: torch.Tensor
    up_count: torch.Tensor
    down_count: torch.Tensor
    went_up: torch.Tensor
    went_down: torch.Tensor
    still: torch.Tensor
    best: torch.Tensor
    best_before: torch.Tensor

    @classmethod
    def fresh(cls, rules: CostRules, labels: int) -> Costs:
        """At the start."""
        counts = [torch.zeros(labels, dtype=torch.int64) for _ in range(4)]
        flags = [torch.zeros(labels, dtype=torch.bool) for _ in range(2)]
        norms = [torch.full((labels,), torch.inf, dtype=torch.float64) for _ in range(2)]
        return cls(
            rules,
            cost=torch.zeros(labels, dtype=torch.float64),
            set_count=counts[0],
            up_count=counts[1],
            down_count=counts[2],
            still=counts[3],
            went_up=flags[0],
            went_down=flags[1],
            best=norms[0],
            best_before=norms[1],
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that changes, by name; for checkpoints."""
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}

    def forget(self) -> None:
        """Forget the best norms and the epochs without progress; weights and their counters stay."""
        self.best.fill_(torch.inf)
        self.best_before.fill_(torch.inf)
        self.still.zero_()

    def update(
        self, rows: torch.Tensor, success: torch.Tensor, norms: torch.Tensor, *, may_finish: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take note of an epoch.

        Args:
            rows: The A labels that ran, int64.
            success: Share of images that their triggers sent to them, A.
            norms: Norms of their masks, means over the epoch, A float64.
            may_finish: Whether a label without progress is finished.

        Returns:
            Which of them have a new best trigger, A; which of them are finished, A. The weight of a finished label is
            not changed any more.
        """
        rules = self.rules
        works = success >= rules.threshold
        better = works & (norms < self.best[rows])
        self.best[rows] = torch.where(better, norms, self.best[rows])
        finished = self._finished(rows) if may_finish else torch.zeros(len(rows), dtype=torch.bool)
        # From here on only labels that go on: a finished label keeps the weight and the counters that it ended with.
        on = rows[~finished]
        works = works[~finished]
        # Phase 1, weight 0: the trigger is optimised for success alone, until it has worked `patience` epochs in a row.
        # A weight of exactly 0 marks this phase; multiplying and dividing leave it there.
        started = (self.cost[on] == 0) & works
        self.set_count[on] = torch.where(started, self.set_count[on] + 1, 0)
        first = started & (self.set_count[on] >= rules.patience)
        self.cost[on[first]] = rules.initial
        # Epochs before the weight was set say nothing about whether it is too high or too low.
        for counter in (self.up_count, self.down_count):
            counter[on[first]] = 0
        for flag in (self.went_up, self.went_down):
            flag[on[first]] = False
        # Phase 2. This very epoch counts as the first of a row, also where the weight has just been set.
        self.up_count[on] = torch.where(works, self.up_count[on] + 1, 0)
        self.down_count[on] = torch.where(works, 0, self.down_count[on] + 1)
        up = self.up_count[on] >= rules.patience
        down = self.down_count[on] >= rules.patience
        self.cost[on[up]] *= rules.multiplier
        # The way down is steeper than the way up: a trigger that stopped working is to recover soon, and after a fall
        # and a rise the weight is not where it was but at another value, so that it closes in on the boundary.
        self.cost[on[down]] /= rules.multiplier**1.5
        self.went_up[on[up]] = True
        self.went_down[on[down]] = True
        self.up_count[on[up]] = 0
        self.down_count[on[down]] = 0
        return better, finished

    def _finished(self, rows: torch.Tensor) -> torch.Tensor:
        rules, best, before = self.rules, self.best[rows], self.best_before[rows]
        if rules.stop_patience is None:
            return torch.zeros(len(rows), dtype=torch.bool)
        found = torch.isfinite(best)
        # The counter starts only with a first trigger that works: inf >= ratio * inf would count as no progress.
        no_progress = best >= rules.stop_ratio * before
        still = torch.where(no_progress, self.still[rows] + 1, 0)
        self.still[rows] = torch.where(found, still, self.still[rows])
        self.best_before[rows] = torch.minimum(best, before)
        # Early success at a low weight is no minimum: the boundary must have been crossed both ways.
        return self.went_up[rows] & self.went_down[rows] & (self.still[rows] >= rules.stop_patience)
