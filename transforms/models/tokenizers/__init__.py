"""Speech tokenizers: k-means on encoder features, neural codecs, FSQ."""
