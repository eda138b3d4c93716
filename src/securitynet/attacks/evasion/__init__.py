"""Evasion: small perturbations of an image that change the target's prediction."""
