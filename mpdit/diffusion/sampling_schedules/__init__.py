"""The noise levels of a sampler's steps, one kind a file."""
