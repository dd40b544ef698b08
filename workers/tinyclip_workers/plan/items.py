"""Questions of the control plane about items of an index: what one is, or the thumbnail of its image."""

import base64
import os
from collections.abc import Callable, Mapping
from typing import Any

from tinyclip.addresses import ARTIFACTS_ROOT
from tinyclip.errors import MissingExtra

from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.retrieval.images import NoThumbnail
from tinyclip_workers.retrieval.viewing import Items, NoSuchItem, open_items


def item_or_problem(question: Mapping[str, Any], diagnostics: Diagnostics) -> dict[str, Any]:
    """Return `{"item"}` for `{"index", "stamp", "id"}`; without an item, as `_answered`."""
    diagnostics.begin("/id", question["id"], "reading an item")
    return _answered(question, lambda items: {"item": items.view(question["id"]).model_dump(mode="json")})


def item_thumbnail_or_problem(question: Mapping[str, Any], diagnostics: Diagnostics) -> dict[str, Any]:
    """Return `{"jpeg"}` in base64 for `{"index", "stamp", "id", "size"}`; without a thumbnail, as `_answered`."""
    diagnostics.begin("/id", question["id"], "reading an item's image")
    return _answered(
        question, lambda items: {"jpeg": base64.b64encode(items.thumbnail(question["id"], question["size"])).decode()}
    )


def _answered(question: Mapping[str, Any], answer: Callable[[Items], dict[str, Any]]) -> dict[str, Any]:
    """Return an answer, `{"missing": why, "code"}`, or `{"unavailable": why}` if another try may succeed."""
    try:
        return answer(open_items(os.environ[ARTIFACTS_ROOT], question["index"], question["stamp"]))
    except NoThumbnail as error:
        return {"missing": str(error), "code": "no_thumbnail"}
    except (NoSuchItem, FileNotFoundError) as error:
        return {"missing": str(error), "code": "no_such_item"}
    except (OSError, MissingExtra, ValueError) as error:
        return {"unavailable": str(error)}
