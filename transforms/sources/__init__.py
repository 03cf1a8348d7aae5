"""Sources: where a corpus comes from. Each source lists its items for the plan and opens them for ingest."""
