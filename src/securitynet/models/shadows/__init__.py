"""Shadow models: models trained like the target on other data, whose members are known (ML-Doctor, section 3.1).

They are trained in the same way as targets, stored by content, and compared with the target.
"""

from securitynet.models.shadows.fidelity import Accuracies, list_fidelity_warnings
from securitynet.models.shadows.outputs import (
    Reduction,
    ShadowModel,
    ShadowOutputs,
    obtain_shadow_model,
    obtain_shadow_outputs,
)
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
    "find_own_architecture",
    "list_fidelity_warnings",
    "obtain_shadow",
    "obtain_shadow_model",
    "obtain_shadow_outputs",
    "resolve_training",
]
