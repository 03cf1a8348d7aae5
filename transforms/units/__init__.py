"""Speech units: codebooks, and words of units."""
