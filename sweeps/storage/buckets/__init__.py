"""Kinds of buckets that hold a storage, one a file: the scheme of a storage's URL."""
