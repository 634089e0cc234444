"""Training objectives, one a file: `objective` of a recipe."""
