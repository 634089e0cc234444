"""The metrics of what a model has learnt by heart, one a module: they need `data.holdout`."""
