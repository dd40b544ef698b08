"""Deployments of model versions on Ray Serve.

`endpoints` are the routes, `service` the operations and `repository` the queries. `target` is what a deployment should serve, and
`serve_config` the configuration of Ray Serve for all of them. `queries` forwards requests to
replicas, `traffic` sums the metrics of `replicas`. `orchestration/serve/deployments.py` reconciles the two.
"""
