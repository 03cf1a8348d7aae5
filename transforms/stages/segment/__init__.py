"""segment: cut recordings into utterances."""
