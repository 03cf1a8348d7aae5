"""Vocoders: units to speech."""
