"""What makes the masked step cheap: it gathers nothing, and a size is a product of sums."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tinyclip_workers.model.blocks import MaskedLayerNorm
from tinyclip_workers.model.masked import MaskedTowers
from tinyclip_workers.model.towers import TwoTowers
from torch.utils._python_dispatch import TorchDispatchMode

from tests.workers.masked_case import CONSTRAINT, LAYOUT, full_student, inputs

GATHERING = ("index", "gather", "scatter", "nonzero", "masked_select", "masked_scatter", "take")


class Operations(TorchDispatchMode):
    """Counts operations by name, and keeps the size of the largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count[func.overloadpacket.__name__] += 1
        self.largest = max(self.largest, *(t.numel() for t in torch.utils._pytree.tree_leaves(result) if torch.is_tensor(t)), 0)
        return result


@contextmanager
def operations() -> Iterator[Operations]:
    with Operations() as seen:
        yield seen


def backward_of(outputs: tuple[torch.Tensor, ...]) -> None:
    (outputs[0] @ outputs[1].T).square().sum().backward()


def test_masks_add_no_operation_that_gathers_channels_heads_or_units() -> None:
    clip = full_student()
    towers = MaskedTowers(clip, LAYOUT, ("image", "text"), CONSTRAINT)
    noise = towers.noise(torch.Generator().manual_seed(0))
    with operations() as plain:
        backward_of(TwoTowers(clip)(*inputs()))

    with operations() as masked:
        backward_of(towers(*inputs(), noise))

    added = masked.count - plain.count
    assert added["mul"] > 0
    assert not [name for name in added if any(part in name for part in GATHERING)]
    matrix_products = ("mm", "bmm", "addmm", "baddbmm", "convolution", "native_layer_norm", "native_layer_norm_backward")
    assert not [name for name in matrix_products if masked.count[name] != plain.count[name]]


def test_the_sparsity_penalty_needs_no_more_numbers_at_once_than_there_are_units() -> None:
    """The reference multiplies every channel by every head and unit: 28M numbers per step for a ViT-B."""
    towers = MaskedTowers(full_student(), LAYOUT, ("image", "text"), CONSTRAINT)

    with operations() as seen:
        towers.sparsity_penalty(0).loss.backward()

    units = max(loga.numel() for masks in towers.tower_masks().values() for loga in masks.loga().values())
    assert seen.largest == units


@pytest.mark.parametrize("kept", [1, 5, 16])
def test_a_masked_layer_norm_is_the_layer_norm_of_the_kept_channels(kept: int) -> None:
    torch.manual_seed(kept)
    norm, channels = MaskedLayerNorm(16).double(), torch.randperm(16)[:kept].sort().values
    x = 3 + 7 * torch.randn(4, 5, 16, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()

    found = norm(x, torch.zeros(16, dtype=torch.float64).index_fill(0, channels, 1))

    wanted = torch.zeros_like(x)
    weight, bias = norm.weight[channels], norm.bias[channels]
    wanted[..., channels] = torch.nn.functional.layer_norm(x[..., channels], (kept,), weight, bias, norm.eps)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
