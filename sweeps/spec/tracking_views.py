"""The registry of tracking views; what one has to offer is in sweeps/tracking/tracking_view.py."""

from typing import Any

from mpdit.registry import Registry

VIEWS: Registry[Any] = Registry("tracking view", "sweeps.tracking.views")
