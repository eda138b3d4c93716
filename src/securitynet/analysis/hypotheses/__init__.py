"""Tests of claims: from the values of models to the estimate that decides, and those that stand beside it."""
