"""Studies and assessments: which trials to run, and running them so that nothing finished is lost."""
