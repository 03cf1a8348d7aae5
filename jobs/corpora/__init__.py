"""Texts that the project speaks: the demo's dialogues, and what the nano T2C model learnt from."""
