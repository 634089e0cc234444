"""Running the trials: the driver, Ray, the workers."""
