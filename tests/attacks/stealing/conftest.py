"""Fixtures of the tests of stealing; what they share besides is in ``conftest_stealing``."""

from stealing_cases import all_data, digit_data, digit_target, elsewhere, sealed

__all__ = ["all_data", "digit_data", "digit_target", "elsewhere", "sealed"]
