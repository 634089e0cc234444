"""Modulation, one part a file: what a condition does to a sub-layer."""
