"""Commands: one file each; `jobs/cli.py` lists them."""
