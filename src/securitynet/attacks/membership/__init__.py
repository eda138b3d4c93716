"""Membership inference: was this record in the training set? (ML-Doctor, section 3.1; SecurityNet, section 3.2)."""
