"""The assessment of one target: its trials, their execution, defenses that would help, and the policy."""
