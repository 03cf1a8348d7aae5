"""Readers: units back to text, to score targets by what they say."""
