"""The parts of the trainer: feeding batches, losses, checkpoints, randomness. `models.training` joins them."""
