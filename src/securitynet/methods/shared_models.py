"""Models that several trials need, described as `securitynet.methods.base.SharedWork`."""

from __future__ import annotations

from securitynet.methods.base import SharedWork
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.shadows.outputs import make_part_spec, plan_specs
from securitynet.models.shadows.plan import ShadowPlan, ShadowTraining, resolve_training
from securitynet.models.shadows.store import check_shadow
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.target import Target


def describe_shared_model(spec: ModelSpec, kind: str, what: str, context: Context) -> SharedWork:
    """Describe the training of a model of the store; the key is the path of the model in the store.

    Args:
        spec: The model.
        kind: Its folder in the store.
        what: Description in a few words.
        context: Names the store and the device to train on.

    Raises:
        SecurityNetError: If the model cannot be trained in this way.
    """
    spec.check()

    def run(progress: Progress | None) -> None:
        report_progress = None if progress is None else lambda done: progress(done, spec.recipe.epochs)
        obtain_model(spec, kind=kind, cache=context.cache, device=context.device, progress=report_progress)

    return SharedWork(f"{kind}/{spec.record.key}", what, run)


def list_shared_shadows(target: Target, data: TrialData, plan: ShadowPlan, context: Context) -> list[SharedWork]:
    """List the shadow models of a plan, as `securitynet.models.shadows.obtain_shadow_outputs` trains them.

    Args:
        target: The target.
        data: Dataset and splits.
        plan: How many shadow models there are, and how they are trained.
        context: Names the seed, the store and the device.

    Raises:
        SecurityNetError: If the plan does not fit the data.
    """
    training = resolve_training(plan, target, data.trained, data.defense)
    specs = plan_specs(data.dataset, data.splits, plan, training, context.seed)
    for spec in specs:
        check_shadow(spec)
    return [
        describe_shared_model(spec, "shadows", f"shadow model {number} of {plan.count}", context)
        for number, spec in enumerate(specs, start=1)
    ]


def list_shared_shadow(target: Target, data: TrialData, training: ShadowTraining, context: Context) -> list[SharedWork]:
    """List the shadow model of the shadow-train part, as `securitynet.models.shadows.obtain_shadow_model` trains it.

    Args:
        target: The target.
        data: Dataset and splits.
        training: How the shadow model is trained.
        context: Names the seed, the store and the device.
    """
    resolved = resolve_training(training, target, data.trained, data.defense)
    spec = make_part_spec(data.dataset, data.splits, resolved, context.seed)
    check_shadow(spec)
    return [describe_shared_model(spec, "shadows", "the shadow model", context)]
