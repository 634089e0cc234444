"""Preparing, encoding and listing data sets."""
