"""A dataset: where its files lie, how they are named and read, and the check that every shard must pass."""
