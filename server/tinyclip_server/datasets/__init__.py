"""Data sets: shards that a Ray job reads once, and the immutable versions that result.

`endpoints` are the routes of data sets and `version_endpoints` those of versions; `service` and `versions` are the operations and
`repository` the queries. `orchestration/followers/datasets.py` follows the Ray jobs.
"""
