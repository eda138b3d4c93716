"""FGSM: one step along the sign of the gradient."""

from __future__ import annotations

from rows._evasion import evasion_row

ROW = evasion_row("FGSM", (128, 256, 512), epsilon=0.03, steps=1, step=0.03, allowance=40)
