"""The kernel distances, one a module."""
