"""One training step, averages of the weights, magnitude statistics."""
