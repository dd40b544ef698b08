"""Reinforcements: teachers' embeddings of a data set's version, stored by a Ray job and used by training instead of the teachers.

`endpoints` are the routes, `service` the operations and `repository` the queries.
`orchestration/followers/reinforcements.py` follows the Ray jobs.
"""
