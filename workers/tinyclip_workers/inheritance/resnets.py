"""The image tower of a student whose parent's is a ResNet: its most important blocks and channels, fitted by least squares.

Channels belong to groups that are cut together: those between two convolutions of a block, and those of the residual stream of a
stage. A gate on a channel behind a ReLU is a factor of the weight and bias of the batch norms that write it, so its derivative is
theirs (Molchanov et al. 2019, arXiv 1906.10771). A stream cannot be rotated here: a ReLU follows every addition.

Shapes: R rows (positions of calibration images), M inputs of a convolution (channels times kernel), C channels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tinyclip.schemas.layouts import Layout
from torch import Tensor, nn

from tinyclip_workers.inheritance.depth import resnet_blocks_to_keep
from tinyclip_workers.inheritance.importance import likelihood_gradients
from tinyclip_workers.inheritance.reconstruction import LeastSquares
from tinyclip_workers.inheritance.streams import Pairs
from tinyclip_workers.model.fold import State
from tinyclip_workers.model.towers import Clip

PREFIX = "visual."
MAX_ROWS = 16_384
"""Positions of one part of the pairs that a fit uses, evenly spaced: neighbouring ones are alike."""
SMALLEST_SLOPE = 1e-3
"""Slope of a batch norm's channel, relative to the largest, below which it is raised before weights are divided by it."""


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
    """Return the image tower of a student (names with `visual.`): important channels and heads, fitted to the targets.

    `targets` are the image embeddings of each part of the pairs.
    """
    with torch.enable_grad():
        scores = channel_importance(parent, pairs)
    visual: Any = Clip(student).visual.to(parent.logit_scale.device).eval()
    sources = Sources(resnet_blocks_to_keep(parent.visual, pairs.inputs("image"), student.image.layers))
    kept = _most_important(visual, scores, sources)
    visual.load_state_dict(_selected(dict(parent.visual.state_dict()), visual, kept, sources))
    _Fit(visual, parent.visual, kept, sources).fit(pairs.inputs("image"), targets)
    return {f"{PREFIX}{name}": tensor for name, tensor in visual.state_dict().items()}


@dataclass(frozen=True)
class Sources:
    """The parent's blocks that a student has."""

    blocks: list[list[int]]
    """Their numbers in each stage."""

    def convolutions(self) -> Iterator[tuple[Convolution, Convolution]]:
        """Yield each convolution of the student with the parent's."""
        for own in convolutions([len(blocks) for blocks in self.blocks]):
            reads = None if own.reads is None else self._renamed(own.reads)
            yield own, Convolution(self._renamed(own.conv), self._renamed(own.norm), reads, self._renamed(own.writes))

    def block(self, stage: int, block: int) -> int:
        """Return the parent's block for a student's; stages count from 1."""
        return self.blocks[stage - 1][block]

    def _renamed(self, name: str) -> str:
        layer, _, rest = name.partition(".")
        number, _, part = rest.partition(".")
        return f"{layer}.{self.block(int(layer[-1]), int(number))}.{part}" if part else name


def _most_important(visual: Any, scores: Mapping[str, Tensor], sources: Sources) -> dict[str, Tensor]:
    """Return the parent's channels that each group of the student keeps, ascending, and its heads."""
    counts = {own.writes: (there.writes, visual.get_submodule(own.norm).num_features) for own, there in sources.convolutions()}
    counts[HEADS] = (HEADS, visual.attnpool.num_heads)
    return {
        group: scores[source].argsort(descending=True, stable=True)[:count].sort().values
        for group, (source, count) in counts.items()
    }


def _selected(state: State, visual: Any, kept: Mapping[str, Tensor], sources: Sources) -> State:
    """Return the kept channels of every tensor."""
    selected: State = {}
    for own, there in sources.convolutions():
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


Parts = list[Tensor]
"""Activations of all calibration images, in parts (B, C, H, W)."""


class _Fit:
    """The fit of a student's ResNet to its parent's, convolution after convolution, in place (as `Reconstruction`)."""

    def __init__(self, student: Any, parent: Any, kept: Mapping[str, Tensor], sources: Sources) -> None:
        self._student, self._parent, self._kept, self._sources = student, parent, kept, sources

    def fit(self, images: Parts, targets: Sequence[Tensor]) -> None:
        streams = parents = images
        for number in (1, 2, 3):
            conv, norm = f"conv{number}", f"bn{number}"
            parents = [_normed(self._parent, conv, norm, x) for x in parents]
            streams = self._fit(conv, norm, streams, self._kept_of(parents, f"stem{number}"))
            parents, streams = [x.relu() for x in parents], [x.relu() for x in streams]
        parents, streams = [self._parent.avgpool(x) for x in parents], [self._student.avgpool(x) for x in streams]
        for stage in (1, 2, 3, 4):
            for block in range(len(self._student.get_submodule(f"layer{stage}"))):
                streams, parents = self._fit_block(stage, block, streams, parents)
        self._fit_pool(streams, targets)

    def _fit_block(self, stage: int, block: int, streams: Parts, parents: Parts) -> tuple[Parts, Parts]:
        """Fit a block; the parent's stream passes its source and the blocks up to the next source."""
        layer = self._parent.get_submodule(f"layer{stage}")
        at, source = f"layer{stage}.{block}.", self._sources.block(stage, block)
        pool = self._student.get_submodule(f"layer{stage}")[block].avgpool
        inner, wanted = streams, parents
        for number in (1, 2):
            wanted = [_normed(layer[source], f"conv{number}", f"bn{number}", x) for x in wanted]
            inner = self._fit(f"{at}conv{number}", f"{at}bn{number}", inner, self._kept_of(wanted, f"{at}inner{number}"))
            wanted, inner = [x.relu() for x in wanted], [x.relu() for x in inner]
        last = len(self._sources.blocks[stage - 1]) == block + 1
        end = len(layer) if last else self._sources.block(stage, block + 1)
        if block == 0:
            shortcut = self._kept_of([layer[source].downsample(x) for x in parents], f"layer{stage}")
            streams = self._fit(f"{at}downsample.0", f"{at}downsample.1", [pool(x) for x in streams], shortcut)
        sums = [_before_relu(layer[source], x) for x in parents]
        for skipped in layer[source + 1 : end]:
            sums = [_equal_behind_relu(_before_relu(skipped, x.relu()), x) for x in sums]
        rest = [wanted - own for wanted, own in zip(self._kept_of(sums, f"layer{stage}"), streams, strict=True)]
        added = self._fit(f"{at}conv3", f"{at}bn3", [pool(x) for x in inner], rest)
        return [(own + more).relu() for own, more in zip(streams, added, strict=True)], [x.relu() for x in sums]

    def _kept_of(self, parts: Parts, group: str) -> Parts:
        return [part[:, self._kept[group]] for part in parts]

    def _fit(self, conv_name: str, norm_name: str, inputs: Parts, targets: Parts) -> Parts:
        """Fit a convolution and its batch norm to what should follow the latter; returns what does.

        The batch norm's statistics become those of the calibration images, by which it normalises in training as well.
        """
        conv, norm = self._student.get_submodule(conv_name), self._student.get_submodule(norm_name)
        slope_O = _not_zero(norm.weight / (norm.running_var + norm.eps).sqrt())
        sums = LeastSquares(conv.weight[0].numel(), len(slope_O))
        for input_BCHW, target_BOHW in zip(inputs, targets, strict=True):
            rows = F.unfold(input_BCHW, conv.kernel_size, padding=conv.padding, stride=conv.stride).transpose(1, 2).flatten(0, 1)
            step = -(-len(rows) // MAX_ROWS)
            sums.add(rows[::step], target_BOHW.permute(0, 2, 3, 1).flatten(0, 2)[::step])
        weight_OM, bias_O = sums.solve(slope_O[:, None] * conv.weight.flatten(1))
        weight_OM, bias_O = (weight_OM.to(slope_O) / slope_O[:, None], bias_O.to(slope_O))
        mean_O, var_O = sums.moments(weight_OM)
        conv.weight.copy_(weight_OM.view_as(conv.weight))
        norm.running_mean.copy_(mean_O)
        norm.running_var.copy_(var_O)
        norm.weight.copy_(slope_O * (norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(bias_O + slope_O * norm.running_mean)
        return [norm(conv(x)) for x in inputs]

    def _fit_pool(self, streams: Parts, targets: Sequence[Tensor]) -> None:
        output = self._student.attnpool.c_proj
        sums = LeastSquares(output.in_features, output.out_features)
        for stream, target in zip(streams, targets, strict=True):
            sums.add(_pooled(self._student.attnpool, stream), target)
        weight, bias = sums.solve(output.weight)
        output.weight.copy_(weight)
        output.bias.copy_(bias)


def _not_zero(slope_O: Tensor) -> Tensor:
    """Return slopes by which can be divided: a ResNet starts with batch norms of weight 0, and training may end with some."""
    largest = slope_O.abs().max()
    smallest = torch.where(largest > 0, SMALLEST_SLOPE * largest, torch.ones_like(largest))
    return torch.where(slope_O < 0, -1.0, 1.0) * slope_O.abs().clamp(min=smallest)


def _normed(module: nn.Module, conv: str, norm: str, x_BCHW: Tensor) -> Tensor:
    normed: Tensor = module.get_submodule(norm)(module.get_submodule(conv)(x_BCHW))
    return normed


def _before_relu(block: Any, x_BCHW: Tensor) -> Tensor:
    """Return the sum of a block and its shortcut, before the ReLU that ends it."""
    inner = block.bn2(block.conv2(block.bn1(block.conv1(x_BCHW)).relu())).relu()
    shortcut = x_BCHW if block.downsample is None else block.downsample(x_BCHW)
    added: Tensor = block.bn3(block.conv3(block.avgpool(inner))) + shortcut
    return added


def _equal_behind_relu(sum_BCHW: Tensor, before_BCHW: Tensor) -> Tensor:
    """Lower sums that are not positive to those before the block that is not inherited: behind the ReLU, both are 0.

    So a block that adds nothing makes no difference to what the one before it is fitted to.
    """
    return torch.where(sum_BCHW > 0, sum_BCHW, sum_BCHW.minimum(before_BCHW))


def _pooled(pool: Any, x_BCHW: Tensor) -> Tensor:
    """Return the outputs of all heads for the mean of all positions (B, C), which the embedding is projected from."""
    x_BTC = x_BCHW.flatten(2).transpose(1, 2)
    x_BTC = torch.cat([x_BTC.mean(1, keepdim=True), x_BTC], dim=1) + pool.positional_embedding
    q, k, v = (linear(x).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2) for linear, x in (
        (pool.q_proj, x_BTC[:, :1]), (pool.k_proj, x_BTC), (pool.v_proj, x_BTC)
    ))  # fmt: skip
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[:, 0]
