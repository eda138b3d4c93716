"""The definition of a study: its file, its targets and its trials."""
