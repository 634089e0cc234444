"""Kinds of MLP, one a file: `model.mlp` of a recipe."""
