"""Distillation engine, evaluation, export and serving."""

from importlib.util import find_spec

from tinyclip.errors import MissingExtra

from tinyclip_workers import web

for _needed in ("torch", "ray", "open_clip", "webdataset"):
    if find_spec(_needed) is None:
        raise MissingExtra("workers", _needed)

web.guard()
