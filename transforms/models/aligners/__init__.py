"""Forced aligners: CTC emissions or cross-attention to word borders."""
