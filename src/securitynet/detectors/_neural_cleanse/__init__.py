"""The parts of the detector Neural Cleanse."""
