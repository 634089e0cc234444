"""Kinds of advice, one a file."""
