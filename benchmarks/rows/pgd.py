"""PGD: ten steps in L∞, from the image itself, without early stopping, so that all sides take as many."""

from __future__ import annotations

from rows._evasion import evasion_row

ROW = evasion_row("PGD-10", (32, 64, 128), epsilon=8 / 255, steps=10, step=2 / 255, allowance=60)
