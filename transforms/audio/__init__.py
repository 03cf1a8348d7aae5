"""Audio: decode any file to 16 kHz mono; containers, decoders and channels."""
