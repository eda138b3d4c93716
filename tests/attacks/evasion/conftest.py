"""Fixtures of the tests of evasion; what they share besides is in ``conftest_evasion``."""

from evasion_cases import context, data, fresh, networks, surrogates_kept, target

__all__ = ["context", "data", "fresh", "networks", "surrogates_kept", "target"]
