"""The publish stages: tables joined into training sets, filters applied."""
