"""The tracking views, one a module."""
