"""The assessment of one target: which trials, how they are run, what would help, and whether a policy is met."""
