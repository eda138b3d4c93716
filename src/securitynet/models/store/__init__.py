"""Trained models kept on disk: one record, one key, trained once."""
