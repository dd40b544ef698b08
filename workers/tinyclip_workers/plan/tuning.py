"""Checks of what is decided by the agreement with a teacher during training: averaged weights."""

from tinyclip.schemas import JobSpec

from tinyclip_workers.plan.diagnostics import Diagnostics


def check_tuning(spec: JobSpec, diagnostics: Diagnostics) -> None:
    """Check that there is a teacher to agree with; warn if the pairs that decide are trained on."""
    used = []
    for index, stage in enumerate(spec.stages):
        averaging = stage.averaging or spec.averaging
        if averaging is not None and averaging.decay > 0:
            used.append((f"/stages/{index}/averaging" if stage.averaging else "/averaging", averaging.model_dump()))
    if spec.first_teacher is None:
        for pointer, value in dict(used).items():
            message = "is decided by the agreement with a teacher, and the spec has none; remove it or add a teacher"
            diagnostics.error(pointer, value, message)
    elif used and spec.data.train.holdout == 0:
        diagnostics.warn(f"{used[0][0]} is decided on pairs that are trained on; set data.train.holdout, to 0.02 for example")
