"""Which blocks a shallower student inherits.

One after the other, the block is removed whose loss changes the embeddings of the calibration pairs least. In a ResNet this is
done within each stage, from the first to the last; the first block of a stage, which changes its width, stays.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tinyclip_workers.inheritance.streams import TransformerTower, attend, transform
from tinyclip_workers.model.towers import normalized

RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")


@torch.no_grad()
def blocks_to_keep(tower: TransformerTower, inputs: list[Tensor], count: int) -> list[int]:
    """Return the numbers of `count` blocks, ascending. Costs a forward pass for each block that might be removed."""
    every = list(range(len(tower.blocks)))
    whole = _embeddings(tower, inputs, every)
    return _without_least_missed(every, count, lambda blocks: _change(whole, _embeddings(tower, inputs, blocks)))


@torch.no_grad()
def resnet_blocks_to_keep(visual: Any, inputs: list[Tensor], layers: Sequence[int]) -> list[list[int]]:
    """Return the numbers of as many blocks as `layers` has for each stage, ascending, of an open_clip ModifiedResNet.

    Costs as much as `blocks_to_keep` in each stage.
    """
    kept = [list(range(len(visual.get_submodule(name)))) for name in RESNET_STAGES]
    if [len(blocks) for blocks in kept] == list(layers):
        return kept
    whole = _resnet_embeddings(visual, inputs, kept)
    for stage, count in enumerate(layers):

        def change(blocks: list[int], stage: int = stage) -> float:
            return _change(whole, _resnet_embeddings(visual, inputs, [*kept[:stage], [0, *blocks], *kept[stage + 1 :]]))

        kept[stage] = [0, *_without_least_missed(kept[stage][1:], count - 1, change)]
    return kept


def removal_passes(blocks: int, count: int) -> int:
    """Return the forward passes, each of at most the whole tower, by which `count` of some blocks are selected."""
    return sum(range(count + 1, blocks + 1))


def _without_least_missed(blocks: list[int], count: int, change: Callable[[list[int]], float]) -> list[int]:
    """Remove blocks until `count` are left; `change` measures the effect of a tower's having only the given ones of them."""
    kept = blocks
    while len(kept) > count:
        shorter = [[block for block in kept if block != removed] for removed in kept]
        kept = min(shorter, key=change)
    return kept


def _embeddings(tower: TransformerTower, inputs: list[Tensor], blocks: Sequence[int]) -> Tensor:
    rows = []
    for part in inputs:
        stream_BTd = tower.start(part)
        for number in blocks:
            stream_BTd = transform(tower.blocks[number], attend(tower.blocks[number], stream_BTd))
        rows.append(normalized(tower.embedding(part, stream_BTd)))
    return torch.cat(rows)


def _resnet_embeddings(visual: Any, inputs: list[Tensor], blocks: Sequence[Sequence[int]]) -> Tensor:
    rows = []
    for part in inputs:
        stream_BCHW = visual.stem(part)
        for name, numbers in zip(RESNET_STAGES, blocks, strict=True):
            for number in numbers:
                stream_BCHW = visual.get_submodule(name)[number](stream_BCHW)
        rows.append(normalized(visual.attnpool(stream_BCHW)))
    return torch.cat(rows)


def _change(one_NE: Tensor, other_NE: Tensor) -> float:
    return float((one_NE - other_NE).square().sum(1).mean())
