"""Speech units: codebooks and unit languages."""
