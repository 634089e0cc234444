"""Fréchet distance and the features that it is measured in."""
