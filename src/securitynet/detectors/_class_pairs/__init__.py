"""The parts of the detector of backdoors between pairs of classes."""
