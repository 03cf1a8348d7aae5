"""Checkpoint files: embedded weights, tensors, formats of the libraries."""
