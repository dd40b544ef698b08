"""The arrays taken from the reference: their place, and how near is near."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("TINYCLIP_FIXTURES") or Path(__file__).parent / "fixtures")
"""A second set of the same layout is read from the folder that TINYCLIP_FIXTURES names."""


class Arrays:
    """The arrays of one .npz under a prefix, as tensors."""

    def __init__(self, file: str, prefix: str = "") -> None:
        self.file, self.prefix = file, prefix
        with np.load(FOLDER / file) as arrays:
            self._arrays = {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self._arrays[name]))

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def names(self) -> list[str]:
        return list(self._arrays)

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): self[name] for name in self._arrays if name.startswith(prefix)}


def document(file: str) -> Any:
    return json.loads((FOLDER / file).read_text())


def assert_near(ours: Tensor | float, theirs: Tensor, tolerance: float, what: str) -> None:
    """|ours - theirs| <= tolerance * max|theirs| (or tolerance itself where all of theirs is 0)."""
    ours = torch.as_tensor(ours).detach().double()
    theirs = theirs.double()
    assert ours.shape == theirs.shape, f"{what}: shape {tuple(ours.shape)}, reference {tuple(theirs.shape)}"
    if theirs.numel() == 0:
        return
    scale = theirs.abs().max().item() or 1.0
    worst = (ours - theirs).abs().max().item()
    assert worst <= tolerance * scale, f"{what}: differs by {worst:.3e}, of {scale:.3e} (tolerance {tolerance:g})"
