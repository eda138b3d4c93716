"""What NEO alone needs."""
