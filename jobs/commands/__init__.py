"""The commands of `echo-targets`, one file each; `jobs/cli.py` lists them."""
