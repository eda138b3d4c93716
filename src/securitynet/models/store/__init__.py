"""Trained models on disk: each has one record and one key, and is trained once."""
