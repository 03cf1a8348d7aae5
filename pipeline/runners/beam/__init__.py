"""Shards on Apache Beam."""
