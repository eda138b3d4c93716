"""Models that several trials need, as pieces of shared work: see `securitynet.models.method.SharedWork`."""

from __future__ import annotations

import hashlib

import numpy as np

from securitynet.files import stable_hash
from securitynet.models.method import Context, SharedWork, TrialData
from securitynet.models.shadows.plan import ShadowPlan, ShadowTraining, resolve_training
from securitynet.models.signals import Progress
from securitynet.models.stored import Job, obtain_model
from securitynet.models.target import Target


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
        }
    )

    def run(progress: Progress | None) -> None:
        told = None if progress is None else lambda done: progress(done, job.recipe.epochs)
        obtain_model(job, kind=kind, cache=context.cache, device=context.device, progress=told)

    return SharedWork(key, what, run)


def shared_shadows(target: Target, data: TrialData, plan: ShadowPlan, context: Context) -> list[SharedWork]:
    """The shadow models of a plan, as `securitynet.models.shadows.shadow_outputs` trains them.

    Raises:
        SecurityNetError: If the plan does not fit the data.
    """
    pool = plan.records(data.splits)
    chosen = plan.training_sets(len(pool), context.seed)
    training = resolve_training(plan, target, data.trained)
    dataset = data.dataset
    found = []
    for number in range(plan.count):
        records = pool[chosen[number]]
        recipe = training.seeded(context.seed, number)
        job = Job(dataset, records, dataset.labels[records], dataset.num_classes, training.architecture, recipe)
        found.append(shared_model(job, "shadows", f"shadow model {number + 1} of {plan.count}", context))
    return found


def shared_shadow(target: Target, data: TrialData, training: ShadowTraining, context: Context) -> list[SharedWork]:
    """The one shadow model on the shadow-train part, as `securitynet.models.shadows.shadow_model` trains it."""
    records, dataset = data.splits.shadow_train, data.dataset
    resolved = resolve_training(training, target, data.trained)
    recipe = resolved.seeded(context.seed, 0)
    job = Job(dataset, records, dataset.labels[records], dataset.num_classes, resolved.architecture, recipe)
    return [shared_model(job, "shadows", "the shadow model", context)]
