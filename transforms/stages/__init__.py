"""Stages: one file or folder each, listed in jobs/stages.py."""
