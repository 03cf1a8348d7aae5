"""Runners distribute shards over workers: local processes, Ray or Beam, which are imported only when used."""
