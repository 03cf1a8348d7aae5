"""Models behind the transforms: loaded where a worker sets up, never on import of a transform."""
