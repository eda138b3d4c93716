"""Parts of NEO."""
