"""Searches for the smallest student that meets constraints, and sweeps over settings: pure functions of a search's record."""

from tinyclip_workers.searching.advice import advise
from tinyclip_workers.searching.costs import Cost, Latency
from tinyclip_workers.searching.estimates import bounds, duration

__all__ = ["Cost", "Latency", "advise", "bounds", "duration"]
