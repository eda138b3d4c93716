"""What a study consists of: its file, its targets, its trials."""
