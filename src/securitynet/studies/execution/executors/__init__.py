"""Where the tasks of a study run: worker processes on this machine, or a Ray cluster, with one interface."""
