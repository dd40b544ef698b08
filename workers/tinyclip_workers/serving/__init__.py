"""A deployment on Ray Serve: zero-shot classification, embeddings and search over HTTP.

The path of one query: `http/middleware.py` gives it an id and a time limit and has its token checked by `replica/access.py`. A
handler from the table in `http/routes.py` runs it: our own are in `http/handlers.py`, those for clients of other products in
`compat/`. The handler reads and checks it (`queries/`), selects a model (`replica/hosted_models.py`) and calls
`replica/inference.py`. That decodes the images, takes cached texts from `replica/text_cache.py`, and computes the others in
batches shared with other requests (`replica/batching.py`) on the model's engine (`replica/served_model.py`). An invalid query
raises a `ProblemError` (`problems.py`), which `http/errors.py` answers. `app.py` is what Serve deploys.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray import serve


def build(args: dict[str, Any]) -> "serve.Application":
    """Return the application that Serve imports as `tinyclip_workers.serving:build`; `args` are `ServingOptions`."""
    from tinyclip_workers.serving.app import application  # importing Serve takes seconds, and building an index does not need it

    return application(args)
