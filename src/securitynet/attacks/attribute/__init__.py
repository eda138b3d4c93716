"""Attribute inference: what a target's embeddings say of a record beyond its class. One file, one attack."""
