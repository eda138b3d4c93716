"""What activation clustering alone needs."""
