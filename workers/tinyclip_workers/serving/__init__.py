"""A student on Ray Serve: zero-shot classification, embeddings and search over HTTP.

The story of one query: `requests.py` gives it an id and a time limit and lets it in, a route of `web_app.py` has `queries.py`
(or `shapes_*.py`, for the clients of others) read and check it, `inputs.py` decodes its images, `service.py` answers it with
embeddings that `batching.py` gathers and `replica.py` computes with an engine (`engine.py`), and `problems.py` says what was
wrong if something was. `student.py` is one replica, `served_model.py` one model in it, and `app.py` what Serve runs.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray import serve


def build(args: dict[str, Any]) -> "serve.Application":
    """The application that Serve imports by name (`tinyclip_workers.serving:build`); `args` are a `ServingOptions`."""
    from tinyclip_workers.serving.app import application  # Serve takes seconds to import, and building an index needs none of it

    return application(args)
