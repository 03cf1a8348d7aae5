"""EchoX (arXiv 2509.09174): its network, its checkpoints, and decoding it in batches."""
