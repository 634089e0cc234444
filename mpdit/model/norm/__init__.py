"""Kinds of normalisation before each modulation, one a file: `model.norm` of a recipe."""
