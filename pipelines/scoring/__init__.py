"""Scoring a finished training: samples, references, cells."""
