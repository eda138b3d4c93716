"""The command line: one module a command group; thin: parse, call the API, print."""
