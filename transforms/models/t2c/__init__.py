"""Text to codec: the decoder that turns text into speech units."""
