"""Model stealing: a surrogate learns from the target's answers (SecurityNet, section 3.1; ML-Doctor, section 3.4)."""
