"""Learning-rate schedules, one kind a file: how the rate falls towards the end of a training."""
