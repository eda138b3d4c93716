"""Measures this project beside its peers: equal results first, then time, sides in turns."""
