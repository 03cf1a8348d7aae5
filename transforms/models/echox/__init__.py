"""EchoX (arXiv 2509.09174): its network, its checkpoints, and batched decoding."""
