"""Observation of a stage on worker 0, beside its steps and without an effect on them, reported as events.

- `reporting` sends progress, the pruned student and evaluations.
- `agreement` measures the divergence from the teacher on fixed pairs. `watch` does so during the stage, warns, and compares the
  averaged weights with the last ones at the end.
"""
