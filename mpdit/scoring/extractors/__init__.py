"""Feature extractors, one kind a file."""
