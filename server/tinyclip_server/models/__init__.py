"""The model registry: models, their versions and aliases.

`endpoints` are the routes, `service` the operations and `repository` the queries. `imports` makes a version from a model of the
user, and `files` serves the files of a version.
"""
