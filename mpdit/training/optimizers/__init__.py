"""Optimisers, one kind a file: how a step follows from the gradients."""
