"""Rank cells, give each trial's state, export the winner."""
