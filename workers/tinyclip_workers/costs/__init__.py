"""Costs of a layout: its latency on the hardware that serves, from a model that was fitted there, and its exact sizes.

- `terms`: the parts of a tower's computation that take time, counted from its layout
- `model`: fit milliseconds per unit of each term, predict a layout's latency
- `sizes`: parameters, multiply-accumulates and the size of the weights file
- `sampling`: layouts to fit on; `measuring`: the latency of a layout's towers in an engine
- `job`: the Ray job that fits the cost models of a search
"""
