"""The worker group of a stage on Ray Train.

- `group` runs a stage on a group of a fixed size, or on an elastic one, which has as many workers as there is room for.
- `sizes` finds the sizes that an elastic group may have, `room` finds and awaits room for them in the cluster.
- `placement` reports a group that waits for room in the cluster; `leaked_groups` removes what keeps it occupied.
"""
