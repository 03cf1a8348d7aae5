"""Whisper checkpoints: weights, settings and tensor names."""
