"""Parts that spectral signatures alone need."""
