"""Forced aligners: word borders from CTC emissions or cross-attention."""
