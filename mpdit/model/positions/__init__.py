"""Kinds of positions, one a file: `model.positions` of a recipe."""
