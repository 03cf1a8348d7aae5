"""Compare versions of tables, and describe them in the dataset card."""
