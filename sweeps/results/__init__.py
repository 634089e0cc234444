"""Ranking of cells, where each trial stands, the winner."""
