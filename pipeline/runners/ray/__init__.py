"""The Ray Data runner."""
