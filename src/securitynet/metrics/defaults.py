"""Defaults of the metrics, apart from their code so that the command line can show them without importing it."""

DEFAULT_FPRS = (0.1, 0.01, 0.001, 0.0001)

DEFAULT_DELTA = 1e-5
"""Delta of the (epsilon, delta) whose epsilon is bounded from below."""
