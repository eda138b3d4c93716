"""Model inversion: reconstruction of what the classes of a target look like from the model itself."""
