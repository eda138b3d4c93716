"""The trainer: recipes, batches, losses, checkpoints, training defenses, and many small networks at once."""
