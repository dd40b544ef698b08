"""Distillation engine, evaluation, export and serving."""

from importlib.util import find_spec

from tinyclip.errors import MissingExtra

for _needed in ("torch", "ray", "open_clip", "webdataset"):
    if find_spec(_needed) is None:
        raise MissingExtra("workers", _needed)

from tinyclip_workers.runtime import addresses as web  # noqa: E402 -- after the check: it needs packages of the extra

web.guard()
