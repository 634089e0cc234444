"""One training: the loop, its checkpoints, sample grids, energy and time."""
