"""Request-side helpers that every resource uses.

`services` holds the parts of a running server and the dependencies of endpoints; `callers` the project and the scopes of a
request. `bodies` validates JSON at a bounded cost, `conditions` reads ETags, `idempotency` replays answers, `pagination` makes
keyset pages, `streams` server-sent events, `metrics` counts for Prometheus, and `resources` has what all resources share: ids,
deletion and responses.
"""
