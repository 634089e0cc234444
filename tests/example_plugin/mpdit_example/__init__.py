"""An example plug-in: importing it registers its kinds, whose names begin with the name of its entry point."""

from mpdit_example import attention, metric, sampler

__all__ = ["attention", "metric", "sampler"]
