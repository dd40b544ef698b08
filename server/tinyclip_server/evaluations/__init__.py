"""Evaluations of any model on any tasks, each made by one Ray job.

`endpoints` are the routes, `service` the operations and `repository` the queries.
`orchestration/followers/evaluations.py` follows the Ray jobs.
"""
