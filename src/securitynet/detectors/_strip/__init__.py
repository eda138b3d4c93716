"""Parts of STRIP."""
