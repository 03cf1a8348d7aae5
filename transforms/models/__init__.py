"""Models behind the transforms. They are loaded when a worker sets up, never when a transform is imported."""
