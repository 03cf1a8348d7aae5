"""Shards on Ray Data."""
