"""What attacks, detectors, defenses and backdoors have in common: base class, data, context, shared models."""
