"""Which blocks a shallower student inherits.

One after the other, the block is removed whose loss changes the embeddings of the calibration pairs least.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tinyclip_workers.inheritance.streams import TransformerTower, attend, transform
from tinyclip_workers.model.towers import normalized


@torch.no_grad()
def blocks_to_keep(tower: TransformerTower, inputs: list[Tensor], count: int) -> list[int]:
    """Return the numbers of `count` blocks, ascending. Costs a forward pass for each block that might be removed."""
    kept = list(range(len(tower.blocks)))
    whole = _embeddings(tower, inputs, kept)
    while len(kept) > count:
        shorter = [[block for block in kept if block != removed] for removed in kept]
        changes = [_change(whole, _embeddings(tower, inputs, blocks)) for blocks in shorter]
        kept = shorter[min(range(len(kept)), key=changes.__getitem__)]
    return kept


def _embeddings(tower: TransformerTower, inputs: list[Tensor], blocks: Sequence[int]) -> Tensor:
    rows = []
    for part in inputs:
        stream_BTd = tower.start(part)
        for number in blocks:
            stream_BTd = transform(tower.blocks[number], attend(tower.blocks[number], stream_BTd))
        rows.append(normalized(tower.final_norm(tower.read(part, stream_BTd)) @ tower.projection))
    return torch.cat(rows)


def _change(one_NE: Tensor, other_NE: Tensor) -> float:
    return float((one_NE - other_NE).square().sum(1).mean())
