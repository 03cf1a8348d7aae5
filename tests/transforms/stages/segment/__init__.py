"""Tests of segment: scanning, cross-talk, turns and cutting, each alone and on speech."""
