"""Datasets: storage, file layout, the check that every shard must pass, and contracts."""
