"""Formats that weights are rounded to, one kind a file: post-training quantisation as a question of quality."""
