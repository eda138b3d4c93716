"""The quantities of ML-Doctor: one for each attack and threat model, by the names that figures and claims use."""

from __future__ import annotations

from securitynet.analysis import quantities as q

MEMBERSHIP = {
    f"{box}_{data}": q.define_membership(
        f"ml-doctor-{box}-box", f"Membership, {box}-box, {data}", q.BALANCED, auxiliary=(data,)
    )
    for box in ("black", "white")
    for data in ("shadow", "partial")
}
INVERSION = {
    "inversion_error": q.define_inversion("fredrikson", "mse", "Inversion, no data: mean squared error", "plain"),
    "inversion_accuracy": q.define_inversion("generative", "accuracy", "Inversion, shadow: accuracy", "share"),
}
ATTRIBUTE = {
    "attribute_shadow": q.define_attribute("accuracy", "Attribute inference, shadow", auxiliary=("shadow",)),
    "attribute_partial": q.define_attribute("accuracy", "Attribute inference, partial", auxiliary=("partial",)),
}
STEALING = {
    "stealing_shadow": q.define_stealing("agreement", "Stealing, shadow: agreement", auxiliary=("shadow",),
                                  method=("ml-doctor-surrogate",)),
    "stealing_partial": q.define_stealing("agreement", "Stealing, partial: agreement", auxiliary=("partial",),
                                   method=("ml-doctor-surrogate",)),
}  # fmt: skip
EVERY = {**MEMBERSHIP, **INVERSION, **STEALING, **ATTRIBUTE}
JUDGED = {**EVERY, **q.WORST_RECORDS}
"""What targets with a defense are compared in: the paper's measures, and the risk of the worst records."""
BEST = {
    "membership": MEMBERSHIP["white_shadow"],
    "inversion": INVERSION["inversion_accuracy"],
    "attribute": ATTRIBUTE["attribute_shadow"],
    "stealing": STEALING["stealing_shadow"],
}
"""One threat model an attack, as the paper shows them in Figures 7 to 9."""
