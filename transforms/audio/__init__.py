"""Audio files in, 16 kHz mono out: decoders, containers, channels."""
