"""API tokens of a project and their scopes.

`endpoints` are the routes, `service` the operations and `repository` the queries; `shell` creates tokens for the command
`tinyclip-server create-token`. `orchestration/serve/token_digests.py` publishes digests, which deployments check tokens against.
"""
