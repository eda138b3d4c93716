"""One row of the table a file; ``ORDER`` has their order."""
