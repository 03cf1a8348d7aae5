"""Containers of audio: find the recordings in a file from its structure, without decoding samples."""
