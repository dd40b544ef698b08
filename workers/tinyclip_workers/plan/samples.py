"""Questions of the control plane about samples: a page of a data set's version, or the thumbnail of one of it or in any shard."""

import base64
import os
from collections.abc import Callable, Mapping
from typing import Any

from tinyclip.addresses import ARTIFACTS_ROOT
from tinyclip.schemas.datasets import SampleUse

from tinyclip_workers.data.thumbnails import NoThumbnail, thumbnail_at
from tinyclip_workers.datasets.browsing import NoSuchSample, open_version
from tinyclip_workers.plan.diagnostics import Diagnostics


def samples_or_problem(question: Mapping[str, Any], diagnostics: Diagnostics) -> dict[str, Any]:
    """Return `{"items", "next"}` for `{"dataset", "version", "start", "limit", "use"}`; without samples, as `_answered`."""
    diagnostics.begin("/samples", question["start"], "reading samples")

    def answer(root: str) -> dict[str, Any]:
        use = None if question["use"] is None else SampleUse(question["use"])
        page = open_version(root, question["dataset"], question["version"]).page(question["start"], question["limit"], use)
        return {"items": [sample.model_dump(mode="json") for sample in page.items], "next": page.next}

    return _answered(answer)


def thumbnail_or_problem(question: Mapping[str, Any], diagnostics: Diagnostics) -> dict[str, Any]:
    """Return `{"jpeg"}` in base64 for `{"dataset", "version", "key", "number", "size"}`; without a thumbnail, as `_answered`."""
    diagnostics.begin("/key", question["key"], "reading a sample")

    def answer(root: str) -> dict[str, Any]:
        browser = open_version(root, question["dataset"], question["version"])
        jpeg = browser.thumbnail(question["key"], question["number"], question["size"])
        return {"jpeg": base64.b64encode(jpeg).decode()}

    return _answered(answer)


def image_or_problem(question: Mapping[str, Any], diagnostics: Diagnostics) -> dict[str, Any]:
    """Return `{"jpeg"}` in base64 for `{"url", "key", "start", "length", "image_key", "size"}`; without a thumbnail, as
    `_answered`."""
    diagnostics.begin("/number", question["key"], "reading an image")

    def answer(_: str) -> dict[str, Any]:
        place = question["url"], question["key"], question["start"], question["length"]
        return {"jpeg": base64.b64encode(thumbnail_at(*place, question["image_key"], question["size"])).decode()}

    return _answered(answer)


def _answered(answer: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return an answer, `{"missing": why}`, or `{"unavailable": why}` if another try may succeed."""
    try:
        return answer(os.environ[ARTIFACTS_ROOT])
    except (NoSuchSample, NoThumbnail, FileNotFoundError) as error:
        return {"missing": str(error)}
    except OSError as error:
        return {"unavailable": str(error)}
