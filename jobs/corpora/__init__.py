"""Texts that the project speaks: the demo's dialogues, what the nano T2C model learnt from, and the nano domain."""
