"""Data loading for trainers: stream a table into torch, and collate batches."""
