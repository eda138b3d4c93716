"""Model inversion: what the classes of a target look like, recovered from the model itself."""
