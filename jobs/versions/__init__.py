"""Versions of tables: compared, and described in the dataset card."""
