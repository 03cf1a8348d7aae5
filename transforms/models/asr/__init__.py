"""Speech recognition: Whisper with its two decoders, for recordings of any length."""
