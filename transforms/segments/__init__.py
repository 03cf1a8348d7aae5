"""Segments of a reply: where to cut its text, its recording and its units."""
