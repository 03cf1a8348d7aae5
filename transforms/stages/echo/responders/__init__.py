"""Responders: models that reply to a user turn and say the reply in units."""
