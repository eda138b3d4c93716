"""Models that several trials need, as pieces of shared work: see `securitynet.methods.base.SharedWork`."""

from __future__ import annotations

import hashlib

import numpy as np

from securitynet.files import stable_hash
from securitynet.methods.base import Context, SharedWork, TrialData
from securitynet.models.shadows.outputs import part_job, plan_jobs
from securitynet.models.shadows.plan import ShadowPlan, ShadowTraining, resolve_training
from securitynet.models.shadows.store import check_shadow
from securitynet.models.store.cached_model import Job, obtain_model
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.target import Target


def shared_model(job: Job, kind: str, what: str, context: Context) -> SharedWork:
    """The training of a model of the store.

    Args:
        job: The model.
        kind: Its folder in the store.
        what: What it is, in a few words.
        context: Where the store is, and on which device to train.
    """
    soft = job.targets.ndim == 2
    targets = np.ascontiguousarray(job.targets, dtype="<f4" if soft else "<i8")
    key = stable_hash(
        {
            "kind": kind,
            "dataset": job.dataset.fingerprint,
            "records": hashlib.sha256(job.indices.astype("<i8").tobytes()).hexdigest(),
            "targets": hashlib.sha256(targets.tobytes()).hexdigest(),
            "classes": job.num_classes,
            "architecture": job.architecture,
            "recipe": job.recipe.model_dump(mode="json"),
            "input_size": job.input_size,
            **_guarded(job),
        }
    )

    def run(progress: Progress | None) -> None:
        told = None if progress is None else lambda done: progress(done, job.recipe.epochs)
        obtain_model(job, kind=kind, cache=context.cache, device=context.device, progress=told)

    return SharedWork(key, what, run)


def _guarded(job: Job) -> dict[str, object]:
    """What a protection adds to the key."""
    if job.protection is None:
        return {}
    aside = None if job.aside is None else hashlib.sha256(job.aside.astype("<i8").tobytes()).hexdigest()
    return {"defense": job.protection.name, "settings": job.protection.model_dump(mode="json"), "aside": aside}


def shared_shadows(target: Target, data: TrialData, plan: ShadowPlan, context: Context) -> list[SharedWork]:
    """The shadow models of a plan, as `securitynet.models.shadows.shadow_outputs` trains them.

    Raises:
        SecurityNetError: If the plan does not fit the data.
    """
    training = resolve_training(plan, target, data.trained, data.protection)
    jobs = plan_jobs(data.dataset, data.splits, plan, training, context.seed)
    for job in jobs:
        check_shadow(job)
    return [
        shared_model(job, "shadows", f"shadow model {number} of {plan.count}", context)
        for number, job in enumerate(jobs, start=1)
    ]


def shared_shadow(target: Target, data: TrialData, training: ShadowTraining, context: Context) -> list[SharedWork]:
    """The one shadow model on the shadow-train part, as `securitynet.models.shadows.shadow_model` trains it."""
    resolved = resolve_training(training, target, data.trained, data.protection)
    job = part_job(data.dataset, data.splits, resolved, context.seed)
    check_shadow(job)
    return [shared_model(job, "shadows", "the shadow model", context)]
