"""Segments of a reply: where its text, its recording and its units are cut."""
