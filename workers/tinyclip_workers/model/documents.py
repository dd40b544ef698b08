"""JSON documents of a model that come from anybody."""

import json
from collections.abc import Callable
from typing import Any


def parse_object(data: bytes, error: Callable[[str], Exception]) -> dict[str, Any]:
    """Parse a JSON object. `error` makes the exception that is raised instead from what `data` is, as in "not JSON"."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise error("not JSON") from problem
    if not isinstance(document, dict):
        raise error("not a JSON object")
    return document
