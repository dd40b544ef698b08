"""Real kills on real processes: `python -m bench.chaos` from the repository's root (see `__main__.py`)."""
