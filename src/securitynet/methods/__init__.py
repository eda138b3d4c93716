"""What attacks, detectors, defenses and backdoors share: the base class, the data, the context, shared models."""
