"""Shadow models: models trained like the target on other data, whose members are known (ML-Doctor, section 3.1).

They are trained in the same way as targets, stored by content, and compared with the target.
"""

from securitynet.models.shadows.fidelity import Accuracies, compare
from securitynet.models.shadows.outputs import Reduction, ShadowModel, ShadowOutputs, shadow_model, shadow_outputs
from securitynet.models.shadows.plan import (
    ShadowPlan,
    ShadowTraining,
    choose_shadow_defense,
    find_own_architecture,
    resolve_training,
)
from securitynet.models.shadows.store import obtain_shadow

__all__ = [
    "Accuracies",
    "Reduction",
    "ShadowModel",
    "ShadowOutputs",
    "ShadowPlan",
    "ShadowTraining",
    "choose_shadow_defense",
    "compare",
    "find_own_architecture",
    "obtain_shadow",
    "resolve_training",
    "shadow_model",
    "shadow_outputs",
]
