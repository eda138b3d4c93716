"""Evasion: small changes of an image that change what the target takes it for."""
