"""Readers: convert units back to text, to score targets by their text."""
