"""Voices: text to speech, and units to speech."""
