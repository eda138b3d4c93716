"""Shadow models for attacks: the store of `securitynet.models.shadows`, with an attack's data and context."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models import shadows
from securitynet.models.shadows import ShadowModel, ShadowOutputs, ShadowPlan, ShadowTraining
from securitynet.models.targets.target import Target


def shadow_outputs(
    target: Target, data: TrialData, records: NDArray[np.int64], plan: ShadowPlan, context: Context
) -> ShadowOutputs:
    """Outputs of a plan's shadow models for records: see `securitynet.models.shadows.shadow_outputs`.

    The target's accuracy, with which they are compared, is the auditor's knowledge and not on the adversary's bill.
    """
    return shadows.shadow_outputs(
        target,
        data.dataset,
        data.splits,
        records,
        plan,
        trained=data.trained,
        defense=data.defense,
        cache=context.cache,
        seed=context.seed,
        device=context.device,
        progress=context.progress,
    )


def shadow_model(target: Target, data: TrialData, training: ShadowTraining, context: Context) -> ShadowModel:
    """The one shadow model on the shadow parts: see `securitynet.models.shadows.shadow_model`."""
    return shadows.shadow_model(
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
