"""Retrieval indexes, which deployments search, built and updated by Ray jobs.

`endpoints` are the routes, `service` the operations and `repository` the queries. `items` accepts updates of single items, and
`database` is the server's part of indexes in PostgreSQL. `orchestration/followers/indexes.py` follows the Ray jobs.
"""
