"""Figures: one Altair specification each, drawn as SVG, PNG or PDF without a network (`render`), in one style (`style`)."""
