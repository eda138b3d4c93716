"""What Neural Cleanse alone needs."""
