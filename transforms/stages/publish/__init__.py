"""The publish stages: join tables into training sets and apply filters."""
