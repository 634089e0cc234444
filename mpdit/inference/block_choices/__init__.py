"""Which blocks of a trained network are left out, one kind a file: the first half of depth pruning."""
