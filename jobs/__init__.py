"""The command line: one file per command, configurations, and the inspector."""
