"""Transforms of rows: one file or folder per stage, and the models and audio code that stages use."""
