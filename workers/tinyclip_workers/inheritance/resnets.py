"""The image tower of a student whose parent's is a ResNet: its most important blocks and channels, fitted by least squares.

Channels belong to groups that are cut together: those between two convolutions of a block, and those of the residual stream of a
stage. A gate on a channel behind a ReLU is a factor of the weight and bias of the batch norms that write it, so its derivative is
theirs (Molchanov et al. 2019, arXiv 1906.10771). A stream cannot be rotated here: a ReLU follows every addition.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tinyclip.schemas.layouts import Layout
from torch import Tensor

from tinyclip_workers.inheritance.depth import resnet_blocks_to_keep
from tinyclip_workers.inheritance.importance import likelihood_gradients
from tinyclip_workers.inheritance.resnet_reconstruction import ResNetReconstruction
from tinyclip_workers.inheritance.streams import Pairs
from tinyclip_workers.model.fold import State
from tinyclip_workers.model.towers import Clip

PREFIX = "visual."


@dataclass(frozen=True)
class Convolution:
    """A convolution with its batch norm, and the groups of channels that it reads and writes."""

    conv: str
    norm: str
    reads: str | None
    """`None`: the colours of the image."""
    writes: str


def convolutions(layers: Sequence[int]) -> Iterator[Convolution]:
    """Yield the convolutions of open_clip's ModifiedResNet as they are calculated, a shortcut before its block's last one."""
    for number in (1, 2, 3):
        yield Convolution(f"conv{number}", f"bn{number}", f"stem{number - 1}" if number > 1 else None, f"stem{number}")
    stream = "stem3"
    for stage, blocks in enumerate(layers, start=1):
        for block in range(blocks):
            at = f"layer{stage}.{block}."
            yield Convolution(f"{at}conv1", f"{at}bn1", stream, f"{at}inner1")
            yield Convolution(f"{at}conv2", f"{at}bn2", f"{at}inner1", f"{at}inner2")
            if block == 0:
                yield Convolution(f"{at}downsample.0", f"{at}downsample.1", stream, f"layer{stage}")
            stream = f"layer{stage}"
            yield Convolution(f"{at}conv3", f"{at}bn3", f"{at}inner2", stream)


HEADS = "heads"
STREAM_AT_END = "layer4"


def channel_importance(clip: Clip, pairs: Pairs, seed: int = 0) -> dict[str, Tensor]:
    """Return the score of every channel of every group, and of the heads of attention pooling; larger is more important."""
    visual: Any = clip.visual
    convs = list(convolutions(clip.layout.image.layers))
    norms = [visual.get_submodule(each.norm) for each in convs]
    pool = visual.attnpool.c_proj.weight
    tensors = [parameter.requires_grad_() for norm in norms for parameter in (norm.weight, norm.bias)] + [pool.requires_grad_()]
    scores: dict[str, Tensor] = {}
    for gradients in likelihood_gradients(clip, pairs, tensors, seed=seed):
        products = [tensor.detach() * gradient for tensor, gradient in zip(tensors, gradients, strict=True)]
        slopes: dict[str, Tensor] = {HEADS: products.pop().sum(0).view(visual.attnpool.num_heads, -1).sum(1)}
        for number, each in enumerate(convs):
            slope = products[2 * number] + products[2 * number + 1]
            slopes[each.writes] = slopes[each.writes] + slope if each.writes in slopes else slope
        for group, slope in slopes.items():
            scores[group] = scores.get(group, torch.zeros_like(slope)) + slope.square()
    for tensor in tensors:
        tensor.requires_grad_(False)
    return scores


@torch.no_grad()
def cut_resnet(parent: Clip, student: Layout, pairs: Pairs, targets: Sequence[Tensor]) -> State:
    """Return the image tower of a student (names with `visual.`): important blocks, channels and heads, fitted to the targets.

    `targets` are the image embeddings of each part of the pairs.
    """
    with torch.enable_grad():
        scores = channel_importance(parent, pairs)
    visual: Any = Clip(student).visual.to(parent.logit_scale.device).eval()
    images = pairs.images()
    blocks = resnet_blocks_to_keep(parent.visual, images, student.image.layers)
    kept = _most_important(visual, scores, blocks)
    visual.load_state_dict(_selected(dict(parent.visual.state_dict()), visual, kept, blocks))
    ResNetReconstruction(visual, parent.visual, blocks, kept).fit(images, targets)
    return {f"{PREFIX}{name}": tensor for name, tensor in visual.state_dict().items()}


def _with_sources(blocks: Sequence[Sequence[int]]) -> Iterator[tuple[Convolution, Convolution]]:
    """Yield each convolution of a student that has some blocks of each stage of its parent, with the parent's convolution."""

    def source(name: str) -> str:
        layer, _, rest = name.partition(".")
        number, _, part = rest.partition(".")
        return f"{layer}.{blocks[int(layer[-1]) - 1][int(number)]}.{part}" if part else name

    for own in convolutions([len(numbers) for numbers in blocks]):
        reads = None if own.reads is None else source(own.reads)
        yield own, Convolution(source(own.conv), source(own.norm), reads, source(own.writes))


def _most_important(visual: Any, scores: Mapping[str, Tensor], blocks: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Return the parent's channels that each group of the student keeps, ascending, and its heads."""
    counts = {own.writes: (there.writes, visual.get_submodule(own.norm).num_features) for own, there in _with_sources(blocks)}
    counts[HEADS] = (HEADS, visual.attnpool.num_heads)
    return {
        group: scores[source].argsort(descending=True, stable=True)[:count].sort().values
        for group, (source, count) in counts.items()
    }


def _selected(state: State, visual: Any, kept: Mapping[str, Tensor], blocks: Sequence[Sequence[int]]) -> State:
    """Return the kept channels of every tensor."""
    selected: State = {}
    for own, there in _with_sources(blocks):
        weight = state[f"{there.conv}.weight"][kept[own.writes]]
        selected[f"{own.conv}.weight"] = weight if own.reads is None else weight[:, kept[own.reads]]
        for part in ("weight", "bias", "running_mean", "running_var"):
            selected[f"{own.norm}.{part}"] = state[f"{there.norm}.{part}"][kept[own.writes]]
        selected[f"{own.norm}.num_batches_tracked"] = state[f"{there.norm}.num_batches_tracked"]
    channels, width = kept[STREAM_AT_END], visual.attnpool.q_proj.out_features // visual.attnpool.num_heads
    rows = (kept[HEADS][:, None] * width + torch.arange(width, device=channels.device)).flatten()
    outputs = visual.attnpool.c_proj.out_features
    selected["attnpool.positional_embedding"] = state["attnpool.positional_embedding"][:, channels]
    for name in ("q_proj", "k_proj", "v_proj"):
        selected[f"attnpool.{name}.weight"] = state[f"attnpool.{name}.weight"][rows][:, channels]
        selected[f"attnpool.{name}.bias"] = state[f"attnpool.{name}.bias"][rows]
    selected["attnpool.c_proj.weight"] = state["attnpool.c_proj.weight"][:outputs, rows]
    selected["attnpool.c_proj.bias"] = state["attnpool.c_proj.bias"][:outputs]
    return selected
