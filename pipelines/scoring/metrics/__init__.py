"""The metrics, one a module."""
