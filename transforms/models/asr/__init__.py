"""Speech recognition: Whisper with two decoders, for recordings of any length."""
