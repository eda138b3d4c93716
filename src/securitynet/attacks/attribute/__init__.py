"""Attribute inference: what a target's embeddings reveal about a record beyond its class; one file per attack."""
