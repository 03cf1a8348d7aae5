"""Deep checks and output formats of the `check` command."""
