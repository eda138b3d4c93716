"""Metrics: pure functions, scores in, `Measurement` out. No torch."""
