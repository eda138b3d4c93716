"""The schedule of Neural Cleanse's weight on the mask's norm, for many labels at once (Wang et al., 2019, V-A).

The loss of a label is cross-entropy + weight × norm. The smallest norm with which the trigger still works is not known
beforehand, and neither is the weight that leads to it, so the schedule searches for that weight while it optimises:

1. **Weight 0.** The trigger is optimised for success alone; it may cover the whole image. Once it has worked for
   ``patience`` epochs in a row, the weight gets its first value.
2. **Up.** After every ``patience`` epochs of success in a row the weight is multiplied by ``multiplier``: the trigger
   has room to shrink.
3. **Down.** After every ``patience`` epochs of failure in a row it is divided by ``multiplier`` to the power 1.5: the
   pressure was too high, and the trigger has to recover.

So the weight oscillates around the boundary between success and failure, with an exponent that is a multiple of 1 on
the way up and of 1.5 on the way down: it does not return to the same values, which makes the search finer than the
multiplier. With ``initial`` = 0.001, ``multiplier`` = 2 and ``patience`` = 5, a trigger that always works gets the
weight 0.001 after 5 epochs, 0.002 after 4 more, then 0.004 after 5 more, ...; five failures in a row at 0.016 lead to
0.016 / 2^1.5 = 0.0057.

The best trigger of a label is the one with the smallest norm among all epochs in which it worked, at whatever weight.
With ``stop_patience``, a label is finished when its best norm has not improved for that many epochs, provided that its
weight has been both raised and lowered: before that, a standstill only means that the weight is still too low.

Which counter is reset by what follows the authors' program.

A search that ends too early leaves norms that say how soon a label was reached, not how small its trigger can be. A
norm counts as settled if it has fallen by at most 15% during the last quarter of the epochs (`Costs.find_settled`), or
if its label is finished. Norms stand still at the start, too, while the weight is low: so the weight must have been
lowered, or the norm have fallen below half of where it began. The first of these alone would be too strict: at the
boundary, triggers may work and fail in turn, and never ``patience`` times in a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from securitynet.records import Record

SMALL_FALL = 0.15
"""Largest share by which a norm that has settled may fall at the end of the search."""

LAST_SHARE = 0.25
"""Share of the epochs that are the end of the search in this sense."""


class CostRules(Record):
    """The constants of the schedule.

    Attributes:
        initial: First value of the weight that is not 0.
        threshold: Least share of images that a working trigger sends to the label, in (0, 1].
        patience: Epochs of success, or of failure, in a row after which the weight changes.
        multiplier: Factor of the weight after success; above 1.
        stop_ratio: An epoch is no progress if the best norm is at least this share of the best norm before, in (0, 1].
        stop_patience: Epochs without progress after which a label is finished; None never finishes a label early.
    """

    initial: float
    threshold: float
    patience: int
    multiplier: float
    stop_ratio: float
    stop_patience: int | None


@dataclass(eq=False)
class Costs:
    """Weights and counters of L labels, each a tensor of L on the CPU.

    Attributes:
        rules: The constants.
        cost: Weights of the norm, float64; exactly 0 in the first phase.
        set_count: Epochs of success in a row in the first phase.
        up_count: Epochs of success in a row.
        down_count: Epochs of failure in a row.
        went_up: Whether the weight was ever raised.
        went_down: Whether the weight was ever lowered.
        still: Epochs in a row without progress.
        best: Smallest norms of working triggers; infinite where none worked.
        best_before: The same, as of the epoch before.
        marked: The same, as of the last call of `mark`.
    """

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
    marked: torch.Tensor

    @classmethod
    def fresh(cls, rules: CostRules, labels: int) -> Costs:
        """The state at the start.

        Args:
            rules: The constants.
            labels: L.
        """
        counts = [torch.zeros(labels, dtype=torch.int64) for _ in range(4)]
        flags = [torch.zeros(labels, dtype=torch.bool) for _ in range(2)]
        norms = [torch.full((labels,), torch.inf, dtype=torch.float64) for _ in range(3)]
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
            marked=norms[2],
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors by name, for checkpoints."""
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}

    def mark(self) -> None:
        """Remember the best norms, because the end of the search begins."""
        self.marked = self.best.clone()

    def find_settled(self, finished: torch.Tensor, start: float) -> torch.Tensor:
        """Find the labels whose norms are close to their minimum; the module's documentation states the rule.

        Args:
            finished: Labels whose search ended before the last epoch, L bool.
            start: Norm of a mask at the start of the search.

        Returns:
            L bool.
        """
        stands = torch.isfinite(self.marked) & (self.best >= (1 - SMALL_FALL) * self.marked)
        return finished | (stands & (self.went_down | (self.best <= start / 2)))

    def forget(self) -> None:
        """Reset the best norms and the epochs without progress; weights and their counters stay as they are."""
        self.best.fill_(torch.inf)
        self.best_before.fill_(torch.inf)
        self.marked.fill_(torch.inf)
        self.still.zero_()

    def update(
        self, rows: torch.Tensor, success: torch.Tensor, norms: torch.Tensor, *, may_finish: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Update weights and counters after an epoch.

        Args:
            rows: The A labels that ran, int64.
            success: Share of images that their triggers sent to them, A, in [0, 1].
            norms: Mean norms of their masks over the epoch, A float64.
            may_finish: Whether labels without progress are finished now.

        Returns:
            Which of them have a new best trigger, A bool, and which of them are finished, A bool. The weight of a
            finished label does not change any more.
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
        works = torch.isfinite(best)
        # The counter starts only with a first trigger that works: inf >= ratio * inf would count as no progress.
        no_progress = best >= rules.stop_ratio * before
        still = torch.where(no_progress, self.still[rows] + 1, 0)
        self.still[rows] = torch.where(works, still, self.still[rows])
        self.best_before[rows] = torch.minimum(best, before)
        # Early success at a low weight is no minimum: the boundary must have been crossed both ways.
        return self.went_up[rows] & self.went_down[rows] & (self.still[rows] >= rules.stop_patience)
