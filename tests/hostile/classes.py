"""Every class of disturbance, in the order of the table: broken inputs, then odd surroundings."""

from __future__ import annotations

from . import inputs, processes, ranks

CLASSES = (*inputs.CLASSES, *ranks.CLASSES, *processes.CLASSES)
