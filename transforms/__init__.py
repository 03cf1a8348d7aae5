"""What is done to a batch of rows: one file a stage."""
