"""The model under attack: what it answers, to whom, and at which cost in queries."""
