"""Samplers, one kind a file: how the noise levels are walked down from noise to images."""
