"""Models that several trials need, as pieces of shared work: see `securitynet.models.method.SharedWork`."""

from __future__ import annotations

import hashlib

import numpy as np

from securitynet.files import stable_hash
from securitynet.models.method import Context, SharedWork, TrialData
from securitynet.models.shadows.outputs import part_spec, plan_specs
from securitynet.models.shadows.plan import ShadowPlan, ShadowTraining, resolve_training
from securitynet.models.shadows.store import check_shadow
from securitynet.models.signals import Progress
from securitynet.models.stored import ModelSpec, obtain_model
from securitynet.models.target import Target


def shared_model(spec: ModelSpec, kind: str, what: str, context: Context) -> SharedWork:
    """The training of a model of the store.

    Args:
        spec: The model.
        kind: Its folder in the store.
        what: What it is, in a few words.
        context: Where the store is, and on which device to train.
    """
    soft = spec.targets.ndim == 2
    targets = np.ascontiguousarray(spec.targets, dtype="<f4" if soft else "<i8")
    key = stable_hash(
        {
            "kind": kind,
            "dataset": spec.dataset.fingerprint,
            "records": hashlib.sha256(spec.indices.astype("<i8").tobytes()).hexdigest(),
            "targets": hashlib.sha256(targets.tobytes()).hexdigest(),
            "classes": spec.num_classes,
            "architecture": spec.architecture,
            "recipe": spec.recipe.model_dump(mode="json"),
            "input_size": spec.input_size,
            **_guarded(spec),
        }
    )

    def run(progress: Progress | None) -> None:
        told = None if progress is None else lambda done: progress(done, spec.recipe.epochs)
        obtain_model(spec, kind=kind, cache=context.cache, device=context.device, progress=told)

    return SharedWork(key, what, run)


def _guarded(spec: ModelSpec) -> dict[str, object]:
    """What a defense adds to the key."""
    if spec.defense is None:
        return {}
    aside = None if spec.aside is None else hashlib.sha256(spec.aside.astype("<i8").tobytes()).hexdigest()
    return {"defense": spec.defense.name, "settings": spec.defense.model_dump(mode="json"), "aside": aside}


def shared_shadows(target: Target, data: TrialData, plan: ShadowPlan, context: Context) -> list[SharedWork]:
    """The shadow models of a plan, as `securitynet.models.shadows.shadow_outputs` trains them.

    Raises:
        SecurityNetError: If the plan does not fit the data.
    """
    training = resolve_training(plan, target, data.trained, data.defense)
    specs = plan_specs(data.dataset, data.splits, plan, training, context.seed)
    for spec in specs:
        check_shadow(spec)
    return [
        shared_model(spec, "shadows", f"shadow model {number} of {plan.count}", context)
        for number, spec in enumerate(specs, start=1)
    ]


def shared_shadow(target: Target, data: TrialData, training: ShadowTraining, context: Context) -> list[SharedWork]:
    """The one shadow model on the shadow-train part, as `securitynet.models.shadows.shadow_model` trains it."""
    resolved = resolve_training(training, target, data.trained, data.defense)
    spec = part_spec(data.dataset, data.splits, resolved, context.seed)
    check_shadow(spec)
    return [shared_model(spec, "shadows", "the shadow model", context)]
