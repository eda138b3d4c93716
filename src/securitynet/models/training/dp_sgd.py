"""DP-SGD (Abadi et al., 2016): Poisson batches, clipped per-sample gradients, Gaussian noise, and its accounting.

Opacus computes the per-sample gradients, the clipping and the noise, and provides the accountants. The loop, its
randomness and its checkpoints are the trainer's, so that a killed run resumes bit for bit: a repeated epoch draws the
same records and the same noise, which spends no further privacy budget.
"""

from __future__ import annotations

import secrets
import warnings
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional
from typing_extensions import override

from securitynet.errors import ConfigurationError
from securitynet.models.training.accounting import (
    AccountantName,
    check_opacus,
    compute_epsilon,
    make_accountant,
    plan_steps,
    read_epsilon,
)
from securitynet.models.training.step import Procedure, Run
from securitynet.randomness import derive_seed, make_generator
from securitynet.records import Record

ClippingName = Literal["auto", "per-sample", "ghost"]

GRADIENT_NUMBERS = 1 << 27
"""Numbers in the gradients of single records that are held at once: 512 MiB of them."""

GHOST_BATCH = 256
"""Records at once under ghost clipping, which holds no gradients of single records."""

GHOST_WEIGHTS = 4_000_000
"""Number of weights from which ghost clipping is used: it takes as long (benchmarks/defenses_dp_sgd.py), and no more
memory than plain training."""


class SamplingLog(Record):
    """Statistics of the batches that the trainer processed; sums only, which reveal nothing about a single record.

    Attributes:
        total: Number of uses of all records in all batches.
        size_spread: Sum of the squared deviations of batch sizes from the expected size.
        use_spread: Sum of the squared deviations of the uses of each record from the expected number.
    """

    total: int
    size_spread: float
    use_spread: float


class Privacy(Record):
    """The privacy budget that a training with DP-SGD spent, for the model record.

    Attributes:
        epsilon: Spent epsilon, at ``delta``, for adding or removing one record.
        delta: Probability that the bound does not hold.
        accountant: Which bound it is: ``rdp`` and ``prv`` are Opacus'; ``zcdp`` is for comparison with papers.
        noise_multiplier: Deviation of the noise, divided by the clipping bound.
        clipping_bound: Largest Euclidean norm of one record's gradient.
        sample_rate: Probability with which each record joins a batch.
        steps: Number of gradient steps.
        records: Number of training records.
        secret_noise: Whether the seed of the noise was discarded.
        clipping: How per-sample gradients were clipped.
        sampling: The batches as the trainer processed them; None for models from before they were recorded.
    """

    epsilon: float
    delta: float
    accountant: AccountantName
    noise_multiplier: float
    clipping_bound: float
    sample_rate: float
    steps: int
    records: int
    secret_noise: bool = False
    clipping: Literal["per-sample", "ghost"] = "per-sample"
    sampling: SamplingLog | None = Field(default=None, exclude_if=lambda value: value is None)


class PrivateSteps(Procedure):
    """The training procedure of DP-SGD.

    Args:
        noise_multiplier: Deviation of the noise, divided by the clipping bound.
        clipping_bound: Largest norm of one record's gradient.
        accountant: Accountant of the privacy budget; see `compute_epsilon`.
        delta: Probability that the bound does not hold, in (0, 1).
        clipping: How per-sample gradients are clipped; the result is the same.
        secret_noise: Whether records and noise are drawn from a seed that is stored in the checkpoint only, and not
            from the recipe's seed.
    """

    def __init__(
        self,
        *,
        noise_multiplier: float,
        clipping_bound: float,
        accountant: AccountantName = "rdp",
        delta: float = 1e-5,
        clipping: ClippingName = "auto",
        secret_noise: bool = False,
    ) -> None:
        self.noise_multiplier = noise_multiplier
        self.clipping_bound = clipping_bound
        self.accountant: AccountantName = accountant
        self.delta = delta
        self.clipping: ClippingName = clipping
        self._secret = secrets.randbits(63) if secret_noise else None
        self._keeper = make_accountant(accountant)
        self._sizes: list[int] = []
        self._uses = torch.zeros(0, dtype=torch.int64)

    @override
    def identity(self) -> dict[str, Any]:
        return {
            "procedure": "dp-sgd",
            "version": 1,
            "noise_multiplier": self.noise_multiplier,
            "clipping_bound": self.clipping_bound,
            "accountant": self.accountant,
            "delta": self.delta,
            "clipping": self.clipping,
            "secret": self._secret is not None,
        }

    @override
    def begin(self, run: Run) -> None:
        """Attach Opacus' hooks to the layers."""
        check_opacus()
        from opacus.grad_sample import GradSampleHooks, GradSampleHooksFastGradientClipping
        from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping

        # Opacus 1.6 reads channels-last activations as if they were contiguous: gradients of convolutions, and with
        # them the clipping, would be wrong.
        run.layout = torch.contiguous_format
        run.module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        weights = sum(parameter.numel() for parameter in run.module.parameters() if parameter.requires_grad)
        ghost = self.clipping == "ghost" or (self.clipping == "auto" and weights >= GHOST_WEIGHTS)
        self.used: Literal["per-sample", "ghost"] = "ghost" if ghost else "per-sample"
        self.part = GHOST_BATCH if ghost else max(1, GRADIENT_NUMBERS // weights)
        self.sample_rate, self.steps = plan_steps(len(run.feed), run.recipe.batch_size)
        self._uses = torch.zeros(len(run.feed), dtype=torch.int64)
        for layer in run.module.modules():
            if getattr(layer, "inplace", False):  # tensors that hooks have recorded must not be overwritten
                layer.inplace = False  # type: ignore[assignment]
        if ghost:
            bound = {"max_grad_norm": self.clipping_bound, "use_ghost_clipping": True}
            self._hooks: Any = GradSampleHooksFastGradientClipping(run.module, loss_reduction="mean", **bound)
        else:
            self._hooks = GradSampleHooks(run.module, loss_reduction="mean")
        kind = DPOptimizerFastGradientClipping if ghost else DPOptimizer
        self._noise = torch.Generator(run.device)
        self._optimizer: Any = kind(
            run.optimizer,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.clipping_bound,
            expected_batch_size=run.recipe.batch_size,
            generator=self._noise,
        )
        self._optimizer.attach_step_hook(self._keeper.get_optimizer_hook_fn(self.sample_rate))

    @override
    def end(self, run: Run) -> None:
        """Remove everything of Opacus from the network."""
        if not hasattr(self, "_hooks"):
            return
        self._hooks.cleanup()
        for layer in run.module.modules():
            for name in ("activations", "max_batch_len", "autograd_grad_sample_hooks"):
                layer.__dict__.pop(name, None)
        for parameter in run.module.parameters():
            for name in ("grad_sample", "summed_grad", "_norm_sample", "_forward_counter", "_current_grad_sample"):
                parameter.__dict__.pop(name, None)
            parameter.grad = None

    @override
    def batches(self, run: Run, epoch: int) -> list[torch.Tensor]:
        """Draw the batches: each record joins each batch with the same probability, so a batch may be empty."""
        seed = run.recipe.seed if self._secret is None else self._secret
        self._noise.manual_seed(derive_seed(seed, "dp-sgd noise", epoch))
        draws = make_generator(seed, "dp-sgd sampling", epoch)
        count = len(run.feed)
        # Double precision: the smallest rates must not be rounded.
        return [
            (torch.rand(count, generator=draws, dtype=torch.float64) < self.sample_rate).nonzero().flatten()
            for _ in range(self.steps)
        ]

    @override
    def step(
        self, run: Run, batch: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Update the weights; a batch whose gradients do not fit in memory is processed in parts."""
        self._sizes.append(len(positions))
        self._uses += torch.bincount(positions, minlength=len(self._uses))
        if not len(batch):
            self._step_without_records()
            return torch.zeros((), device=run.device), torch.zeros((0, 1), device=run.device)
        parts = list(zip(torch.split(batch, self.part), torch.split(targets, self.part), strict=True))
        loss, logits = torch.zeros((), device=run.device), []
        for number, (images, wanted) in enumerate(parts, start=1):
            self._optimizer.zero_grad(set_to_none=True)
            logits.append(run.forward(images))
            each = functional.cross_entropy(
                logits[-1], wanted, reduction="none", label_smoothing=run.recipe.label_smoothing
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook")  # images need no gradients
                if self.used == "ghost":
                    self._ghost_backward(each)
                else:
                    each.mean().backward()  # type: ignore[no-untyped-call]
            self._optimizer.signal_skip_step(do_skip=number < len(parts))
            self._optimizer.step()
            loss += each.detach().sum() / len(batch)
        return loss, torch.cat(logits).detach()

    @override
    def state(self) -> dict[str, Any]:
        """The budget spent so far, the secret seed if there is one, and the batches so far."""
        return {
            "history": [list(entry) for entry in self._keeper.history],
            "secret": self._secret,
            "sizes": list(self._sizes),
            "uses": self._uses,
        }

    @override
    def restore(self, state: dict[str, Any]) -> None:
        self._keeper.history = [(float(noise), float(rate), int(steps)) for noise, rate, steps in state["history"]]
        self._secret = state["secret"]
        self._sizes = [int(size) for size in state.get("sizes", [])]  # none in checkpoints of earlier versions
        self._uses = state.get("uses", self._uses)

    def privacy(self, records: int) -> Privacy:
        """The spent budget, according to the steps that the accountant recorded."""
        steps = sum(int(entry[2]) for entry in self._keeper.history)
        if self.accountant == "zcdp":
            epsilon = compute_epsilon("zcdp", self.noise_multiplier, self.sample_rate, steps, self.delta)
        else:
            epsilon = read_epsilon(self._keeper, self.delta)
        return Privacy(
            epsilon=epsilon,
            delta=self.delta,
            accountant=self.accountant,
            noise_multiplier=self.noise_multiplier,
            clipping_bound=self.clipping_bound,
            sample_rate=self.sample_rate,
            steps=steps,
            records=records,
            secret_noise=self._secret is not None,
            clipping=self.used,
            sampling=self._summarise_batches(steps) if len(self._uses) == records else None,
        )

    def _summarise_batches(self, steps: int) -> SamplingLog | None:
        """Summarise all batches; None if those before an interruption were not recorded."""
        if len(self._sizes) != steps:
            return None
        sizes, uses = torch.tensor(self._sizes, dtype=torch.float64), self._uses.double()
        return SamplingLog(
            total=sum(self._sizes),
            size_spread=float((sizes - len(uses) * self.sample_rate).square().sum()),
            use_spread=float((uses - steps * self.sample_rate).square().sum()),
        )

    def _ghost_backward(self, each: torch.Tensor) -> None:
        """Two backward passes: one for the norms of per-sample gradients, one for the sum of the clipped ones."""
        self._hooks.enable_hooks()
        each.mean().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad(set_to_none=True)
        factors = self._hooks.get_clipping_coef()
        self._hooks.disable_hooks()
        (factors * each).sum().backward()
        self._hooks.enable_hooks()

    def _step_without_records(self) -> None:
        """Update the weights with noise only, for an empty batch."""
        self._optimizer.zero_grad(set_to_none=True)
        for parameter in self._optimizer.params:
            if self.used == "ghost":
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
        self._optimizer.signal_skip_step(do_skip=False)
        self._optimizer.step()


def list_unsupported_layers(module: nn.Module) -> list[str]:
    """Types of layers in a network that have no per-sample gradients, such as batch norms; sorted."""
    check_opacus()
    from opacus.validators import ModuleValidator

    return sorted(
        {type(layer).__name__ for layer in module.modules() if type(layer) in ModuleValidator.FIXERS}
        if ModuleValidator.validate(module, strict=False)
        else set()
    )


def replace_batch_norms(module: nn.Module) -> nn.Module:
    """Copy a network and replace its batch norms by group norms, with Opacus' validator.

    Raises:
        ConfigurationError: If the network has other layers that DP-SGD does not support.
    """
    check_opacus()
    from opacus.validators import ModuleValidator

    fixed: nn.Module = ModuleValidator.fix(module)
    errors = ModuleValidator.validate(fixed, strict=False)
    if errors:
        raise ConfigurationError(
            f"DP-SGD can't train this network: {str(errors[0]).splitlines()[0]}", hint="Choose another architecture."
        )
    return fixed
