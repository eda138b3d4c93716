"""`Method`: the base class of attacks and detectors, and the records that they return."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final, overload

from pydantic import ValidationError

from securitynet.errors import (
    AccessDenied,
    ConfigurationError,
    UnknownName,
    describe_problems,
    list_problems,
    suggest_names,
)
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.given import choose_threat_model, prepare_trial
from securitynet.methods.output import Output
from securitynet.models.loading.load import load_target
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.target import Target
from securitynet.records import Record, ThreatModel


@dataclass(frozen=True, eq=False)
class SharedWork:
    """Work that several trials need and that is done once, such as training a shadow model, generator or surrogate.

    The result is stored in the cache under a content-derived key, where `Method.run` looks it up.

    Attributes:
        key: Digest of everything that determines the result: equal keys mean equal results.
        what: Description in a few words.
        run: Does the work, and reports progress to the callback it is given.
    """

    key: str
    what: str
    run: Callable[[Progress | None], object]


class InvalidSettings(ConfigurationError):
    """Settings of a method that do not exist or have values that are not allowed.

    Args:
        method: Its class.
        error: What is wrong with them.
        name: What to call it; its class's name by default.
    """

    def __init__(self, method: type[Method], error: ValidationError, name: str | None = None) -> None:
        self.error = error
        hint = f"Its fields: {', '.join(method.model_fields) or 'none'}."
        unknown = [str(problem["loc"][0]) for problem in list_problems(error) if problem["type"] == "extra_forbidden"]
        close = [suggest_names(field, method.model_fields, most=1, cutoff=0.6) for field in unknown]
        if any(close):
            hint = f"Did you mean {' and '.join(filter(None, close))}? {hint}"
        super().__init__(f"Settings of {name or method.__name__}: {describe_problems(error)}.", hint=hint)


class Method(Record, ABC):
    """An attack or a detector; its fields are its configuration.

    Class attributes:
        kind: ``attack`` or ``detector``.
        threat_models: Supported threat models. An adversary with more access can use the method as well.
        output: Class of the output.
        costs: Cost beyond one cached pass over the records, as a verb phrase such as "trains shadow models"; None if
            there is none worth mentioning. Methods with a cost are not in ``standard``, the default of `assess`.
        exact_together: Whether `run_together` gives exactly the outputs of `run`, so that a study may run the trials of
            several small targets of one dataset in one task.
        trains_like_target: Whether it trains models like the target, so that its result depends on the training of the
            target.
        version: Raised when equal settings give other results than before, so that trials of an earlier version are not
            taken for its own.
    """

    kind: ClassVar[Literal["attack", "detector"]]
    threat_models: ClassVar[tuple[ThreatModel, ...]]
    output: ClassVar[type[Output]]
    costs: ClassVar[str | None] = None
    exact_together: ClassVar[bool] = False
    trains_like_target: ClassVar[bool] = False
    version: ClassVar[int] = 1

    @property
    def needs_shadow_parts(self) -> bool:
        """Whether threat models with shadow data need a split that has shadow parts."""
        return True

    @abstractmethod
    def run(self, target: Target, data: TrialData, context: Context) -> Output:
        """Run the method and return its raw output.

        Args:
            target: The target, with no more access than the threat model grants.
            data: Dataset, splits, and what is known about the training of the target.
            context: Seed, cache, device, and the count of queries.
        """

    def run_together(self, cases: Sequence[tuple[Target, TrialData, Context]]) -> Sequence[Output]:
        """Run the method on several targets, and return the raw output for each, in order.

        A method overrides this where it can do more at once, such as training the attack networks of all targets.

        Args:
            cases: The arguments of `run` for each target.
        """
        return [self.run(*case) for case in cases]

    def shared_work(self, target: Target, data: TrialData, context: Context) -> Sequence[SharedWork]:
        """List the work in `run` that other trials need as well. A study does each piece once, before its trials.

        This is only an optimisation that keeps workers from waiting for one another: `run` does the same work, with the
        same result, if it has not been done. Listing must be quick and must not query the target.

        Args:
            target: The target, as for `run`.
            data: As for `run`.
            context: As for `run`.
        """
        return ()

    if not TYPE_CHECKING:  # for a type checker the fields are the arguments

        def __init__(self, /, **settings: Any) -> None:
            """Create a method with these settings; see the class's attributes.

            Raises:
                InvalidSettings: If a setting does not exist or has an invalid value; the message names all of them.
            """
            try:
                super().__init__(**settings)
            except ValidationError as error:
                raise InvalidSettings(type(self), error) from None

    @overload
    def __call__(self, target: Target, data: TrialData, context: Context, threat_model: ThreatModel, /) -> Output: ...

    @overload
    def __call__(
        self, model: Any, train: Any, test: Any = None, threat_model: ThreatModel | None = None, /, **options: Any
    ) -> Output: ...

    @final
    def __call__(
        self, model: Any, train: Any, test: Any = None, threat_model: ThreatModel | None = None, /, **options: Any
    ) -> Output:
        """Run the method on a model and its data, and return its raw output, without a report.

        ``securitynet.attacks.Loss()(model, train, test)`` takes what `securitynet.assess` takes. With a loaded target,
        `TrialData`, a `Context` and a threat model, the target is restricted to the access of the threat model and
        attacked; see `admitted`.

        Args:
            model: A ``torch.nn.Module``, a callable from images to class scores, a reference, or a loaded target.
            train: Its training data: a torch dataset, a pair (images, labels) of arrays, a Hugging Face dataset, a
                loaded dataset or a reference; with ``members=mask`` one dataset of both.
            test: Data that it was not trained on, in the same forms.
            threat_model: One of `threat_models`; by default the first for which model and data suffice.
            **options: See `securitynet.methods.given.prepare_trial`: ``members``, ``limit``, ``normalize``, ``seed``...

        Returns:
            The output: its arrays (``scores``, ``is_member`` and ``indices`` of membership inference), its measurements
            by ``measure()``, and the value of one by ``output["auc"]``.

        Raises:
            SecurityNetError: If the model, the data or an option is invalid.
        """
        if isinstance(train, TrialData):
            if options or threat_model is None or not isinstance(test, Context):
                raise ConfigurationError(
                    "With TrialData a method takes a loaded target, a Context and a threat model, and no options."
                )
            target, data, context = model, train, test
        else:
            target, data, context = prepare_trial(model, train, test, **_checked(options))
            threat_model = threat_model or choose_threat_model(
                self.threat_models, target, data, needs_shadow_parts=self.needs_shadow_parts
            )
        view, context = self.admitted(target, context, threat_model)
        return self.run(view, data, context)

    def admitted(self, target: Target, context: Context, threat_model: ThreatModel) -> tuple[Target, Context]:
        """Restrict the target to a threat model, and name the threat model in the context.

        Args:
            target: The target, with at least the access that the threat model assumes.
            context: The context of the run.
            threat_model: One of `threat_models`.

        Returns:
            The restricted view of the target, and a copy of the context with the threat model.

        Raises:
            AccessDenied: If the target gives less access than the threat model assumes.
            ConfigurationError: If this method does not support the threat model.
        """
        if threat_model not in self.threat_models:
            served = ", ".join(map(str, self.threat_models))
            raise ConfigurationError(
                f"{type(self).__name__} does not serve {threat_model}.", hint=f"It serves {served}."
            )
        if not target.access.covers(threat_model.access):
            raise AccessDenied(
                f"{target.reference} is under {target.access.value} access; {threat_model} assumes more."
            )
        return target.under(threat_model.access), replace(context, threat_model=threat_model)


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options, if `prepare_trial` or `load_target` has them all.

    Raises:
        UnknownName: If one does not exist.
    """
    known = {
        name
        for function in (prepare_trial, load_target)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("dataset", "transform")
    }
    for name in options:
        if name not in known:
            raise UnknownName("option", name, known)
    return options
