"""Figures: one Altair specification each, in one style (`style`), drawn without a network (`render`)."""
