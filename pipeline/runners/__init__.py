"""Runners: where shards are worked on. `ray` and `beam` are imported inside theirs."""
