"""Defaults of the metrics, apart from their code so that the command line can show them without importing it."""

DEFAULT_FPRS = (0.1, 0.01, 0.001, 0.0001)

MOST_FPRS = 100
"""False-positive rates of one assessment: each is a measurement of each attack."""

DEFAULT_DELTA = 1e-5
"""Delta of the (epsilon, delta) whose epsilon is bounded from below."""
