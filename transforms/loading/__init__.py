"""The trainer's side: streaming a table into torch, and the batches that trainers read."""
