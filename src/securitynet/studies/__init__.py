"""Studies: the definition of sets of trials, and their resumable execution."""
