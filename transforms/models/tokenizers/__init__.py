"""Speech tokenizers: k-means on encoder features, neural codecs, finite scalar quantization."""
