"""The HTTP application: what surrounds the resources' endpoints.

`app` assembles services, routes, middleware and background loops. A request passes, outermost first, `request_log` (counts,
times and logs it), `request_ids` and `access` (token, scope, `rate_limits`, size of the body). `body_checks` refuses bodies
that cannot be stored, `error_handlers` answers exceptions as problem documents, and `openapi` describes them. `health` and
`readiness` answer probes and Prometheus.
"""
