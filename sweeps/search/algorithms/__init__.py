"""The search algorithms, one a module."""
