"""The arrays taken from the reference: where they are, and what counts as equal."""

import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from torch import Tensor

OWN_FOLDER = Path(__file__).parent / "fixtures"
FOLDER = Path(os.environ.get("TINYCLIP_FIXTURES") or OWN_FOLDER)
"""A second set of the same layout is read from the folder that TINYCLIP_FIXTURES names."""


class Arrays:
    """The arrays of one .npz under a prefix, as tensors."""

    def __init__(self, file: str, prefix: str = "", folder: Path = FOLDER) -> None:
        self.file, self.prefix = file, prefix
        with np.load(folder / file) as arrays:
            self._arrays = {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        """Return an array; the test is skipped if it was not recorded."""
        if name not in self._arrays:
            pytest.skip(self.missing(name))
        return torch.from_numpy(np.array(self._arrays[name]))

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def names(self) -> list[str]:
        return list(self._arrays)

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): self[name] for name in self._arrays if name.startswith(prefix)}

    def missing(self, name: str) -> str:
        return f"{self.file} has no {self.prefix}{name}: it was not recorded"


def document(file: str, folder: Path = FOLDER) -> Any:
    return json.loads((folder / file).read_text())


class Near(Protocol):
    """Compares a value with the array of a name; an array that was not recorded is skipped with a message.

    The reference keeps one row a layer where we have all in one row: `flat` compares those.
    """

    def __call__(self, ours: Tensor | float, arrays: Arrays, name: str, tolerance: float, *, flat: bool = False) -> None: ...


def assert_near(ours: Tensor | float, theirs: Tensor, tolerance: float, what: str) -> None:
    """Assert |ours - theirs| <= tolerance * max|theirs| (or tolerance itself where all of theirs is 0)."""
    ours = torch.as_tensor(ours).detach().double()
    theirs = theirs.double()
    assert ours.shape == theirs.shape, f"{what}: shape {tuple(ours.shape)}, reference {tuple(theirs.shape)}"
    if theirs.numel() == 0:
        return
    scale = theirs.abs().max().item() or 1.0
    worst = (ours - theirs).abs().max().item()
    assert worst <= tolerance * scale, f"{what}: differs by {worst:.3e}, of {scale:.3e} (tolerance {tolerance:g})"
