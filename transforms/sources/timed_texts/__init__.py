"""Texts that come with recordings: phrases with their times, read from the formats in which people have them."""
