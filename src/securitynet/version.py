"""The version of the package: one place, which loads nothing."""

__version__ = "0.2.0"
