"""Shadow models for attacks: `securitynet.models.shadows` with the data and the context of an attack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models import shadows
from securitynet.models.shadows import Reduction, ShadowModel, ShadowOutputs, ShadowPlan, ShadowTraining
from securitynet.models.targets.target import Target


def compute_shadow_outputs(
    target: Target,
    data: TrialData,
    records: NDArray[np.int64],
    plan: ShadowPlan,
    context: Context,
    *,
    reduce: Reduction | None = None,
    views: Sequence[ImageDataset] = (),
    labels_only: bool = False,
) -> ShadowOutputs:
    """Return the outputs of shadow models for records; see `securitynet.models.shadows.obtain_shadow_outputs`.

    The accuracy of the target, with which that of the shadow models is compared, is the auditor's knowledge and does
    not count as queries of the adversary.

    Args:
        target: The target.
        data: Dataset and splits.
        records: Records to compute outputs for, N.
        plan: How many shadow models there are, and how they are trained.
        context: Seed, cache and device.
        reduce: Applied to the outputs of each model as they come.
        views: Copies of the dataset with changed images, for which outputs are computed too.
        labels_only: Whether ``reduce`` uses the predicted class alone.
    """
    return shadows.obtain_shadow_outputs(
        target,
        data.dataset,
        data.splits,
        records,
        plan,
        reduce=reduce,
        views=views,
        labels_only=labels_only,
        trained=data.trained,
        defense=data.defense,
        cache=context.cache,
        seed=context.seed,
        device=context.device,
        progress=context.progress,
    )


def obtain_part_shadow(target: Target, data: TrialData, training: ShadowTraining, context: Context) -> ShadowModel:
    """Return the one shadow model of the shadow parts; see `securitynet.models.shadows.obtain_shadow_model`.

    Args:
        target: The target.
        data: Dataset and splits.
        training: How the shadow model is trained.
        context: Seed, cache and device.
    """
    return shadows.obtain_shadow_model(
        target,
        data.dataset,
        data.splits,
        training,
        trained=data.trained,
        defense=data.defense,
        cache=context.cache,
        seed=context.seed,
        device=context.device,
        progress=context.progress,
    )
