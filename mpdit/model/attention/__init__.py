"""Kinds of attention, one a file: `model.attention` of a recipe."""
