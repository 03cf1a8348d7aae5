"""Texts to synthesize: the demo's dialogues, the nano T2C model's training sentences, and the nano domain."""
