"""What the two-sample classifier needs alone."""
