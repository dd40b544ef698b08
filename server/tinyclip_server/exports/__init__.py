"""Exports of a model version to the formats of other libraries, each made by one Ray job.

`endpoints` are the routes, `service` the operations and `repository` the queries.
`orchestration/followers/exports.py` follows the Ray jobs.
"""
