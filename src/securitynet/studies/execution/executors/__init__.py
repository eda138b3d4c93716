"""Where the jobs of a study run: worker processes of this machine, or a Ray cluster. One interface: `base.Executor`."""
