"""Model stealing: a surrogate learns from the target's outputs (SecurityNet, section 3.1; ML-Doctor, section 3.4)."""
