"""The echo stage: replies to user turns, in segments with their units."""
