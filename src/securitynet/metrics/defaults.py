"""Defaults of the metrics, apart from their code so that the command line can show them without importing it."""

DEFAULT_FPRS = (0.1, 0.01, 0.001)
