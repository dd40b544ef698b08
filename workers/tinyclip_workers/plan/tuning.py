"""Checks of what is decided by the agreement with a teacher during training: averaged weights and the learning rate."""

from collections.abc import Iterator
from typing import Any

from tinyclip.schemas import JobSpec

from tinyclip_workers.plan.diagnostics import Diagnostics


def check_tuning(spec: JobSpec, diagnostics: Diagnostics) -> None:
    """Check that there is a teacher to agree with; warn if the pairs that decide are trained on."""
    used = dict(_used(spec))
    for pointer, value in used.items() if spec.first_teacher is None else ():
        message = "is decided by the agreement with a teacher, and the spec has none; remove it or add a teacher"
        diagnostics.error(pointer, value, message)
    if used and spec.first_teacher is not None and spec.data.train.holdout == 0:
        pointers = " and ".join(used)
        diagnostics.warn(f"{pointers}: decided on pairs that are trained on; set data.train.holdout, to 0.02 for example")
    searching = {
        f"/stages/{index}/optimizer/lr" if stage.optimizer else "/optimizer/lr"
        for index, stage in enumerate(spec.stages)
        if stage.prune is not None and stage.prune.search == "joint" and (stage.optimizer or spec.optimizer).lr == "auto"
    }
    for pointer in sorted(searching):
        message = "selects no rate for a joint search, whose model every rate makes worse; give a number, or use search: frozen"
        diagnostics.error(pointer, "auto", message)


def _used(spec: JobSpec) -> Iterator[tuple[str, Any]]:
    """Yield the pointers and values of the settings in use."""
    for index, stage in enumerate(spec.stages):
        averaging, optimizer = stage.averaging or spec.averaging, stage.optimizer or spec.optimizer
        if averaging is not None and averaging.decay > 0:
            yield f"/stages/{index}/averaging" if stage.averaging else "/averaging", averaging.model_dump()
        if optimizer.lr == "auto":
            yield f"/stages/{index}/optimizer/lr" if stage.optimizer else "/optimizer/lr", "auto"
