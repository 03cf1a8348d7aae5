"""Responders: models that reply to a user turn and decode the reply's units."""
