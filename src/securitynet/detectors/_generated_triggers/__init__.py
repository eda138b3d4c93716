"""The parts of the detector of triggers that depend on the image."""
