"""The HTTP application: what surrounds the resources' endpoints.

`app` assembles services, routes, middleware and background loops. A request passes, outermost first, `request_log` (counts,
times and logs it), `request_ids` and `access` (token, scope, `rate_limits`, size of the body). `connections` limits connections
before that, and `http/bodies.py` validates bodies after it. `error_handlers` answers exceptions as problem documents, and
`openapi` describes them. `health` and `readiness` answer probes and Prometheus.
"""
