"""Training of the small models: text to codec, EchoX, unit readers."""
