"""Files in the layouts in which models are published: the reference's checkpoints, open_clip's state dicts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tinyclip_workers.importing.convert import Imported, read_model
from tinyclip_workers.importing.files import ImportRefused
from torch import Tensor


def official_names(state: Mapping[str, Tensor], *, ddp: bool = False, doubled: bool = False) -> dict[str, Tensor]:
    """A state dict as the reference saves it: one module a tower, wrapped or not, and after the prune step each tensor twice."""
    named = {}
    module = "module." if ddp else ""
    for name, tensor in state.items():
        if name == "logit_scale":
            named[f"_logit_scale.{module}logit_scale"] = tensor
            continue
        tower = "image" if name.startswith("visual.") else "text"
        named[f"_{tower}_encoder.{module}{name}"] = tensor
        if doubled:
            named[f"{tower}_encoder_without_ddp.{name}"] = tensor
    return named


def checkpoint(state: Mapping[str, Tensor], wrapper: str = "state_dict") -> dict[str, Any]:
    """What the reference saves beside the weights."""
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0}
    return {"epoch": 5, "iter_in_epoch": 100, "name": "run", wrapper: dict(state), "optimizer": [optimizer.state_dict()] * 3,
            "scaler": scaler}


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def question(
    source: Path | str, scratch: Path, *, called: str | None = None, limit: int = 1 << 30, **options: Any
) -> dict[str, Any]:
    return {
        "source": str(source), "called": called, "scratch": str(scratch), "limit": limit, "seconds": 60,
        "pointer": "/file" if called else "/source", "options": options,
    }


def read(source: Path | str, **options: Any) -> Imported:
    """An import as far as it goes without writing; `called` is the name under which the source was uploaded."""
    folder = Path(source).parent
    return read_model(question(source, folder / "scratch", **options))


def refusal(source: Path | str, **options: Any) -> ImportRefused:
    try:
        read(source, **options)
    except ImportRefused as error:
        return error
    raise AssertionError("it was not refused")
