"""Least-squares reconstruction of a ResNet, as of a transformer (`reconstruction`), convolution after convolution.

Each is fitted to what the parent has behind its batch norm; the last one of a block to the sum of the block and its shortcut.

Shapes: R rows (positions of calibration images), M inputs of a convolution (channels times kernel), O its outputs, C channels,
B images of a part, E embedding size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyclip_workers.inheritance.reconstruction import LeastSquares

MAX_ROWS = 16_384
"""Positions of one part of the pairs that a fit uses, evenly spaced: neighbouring ones are alike."""
SMALLEST_SLOPE = 1e-3
"""Slope of a batch norm's channel, relative to the largest, below which it is raised before weights are divided by it."""

Parts = list[Tensor]
"""Activations of all calibration images, in parts (B, C, H, W)."""


class ResNetReconstruction:
    """The fit of a student's ResNet to its parent's, in place."""

    def __init__(self, student: Any, parent: Any, blocks: Sequence[Sequence[int]], kept: Mapping[str, Tensor]) -> None:
        """`blocks` are the parent's blocks that the student has, in each stage; `kept` the parent's channels of each group."""
        self._student, self._parent, self._blocks, self._kept = student, parent, blocks, kept

    @torch.no_grad()
    def fit(self, images: Parts, targets: Sequence[Tensor]) -> None:
        """Fit every convolution, then the projection; `targets` are the embeddings of each part of the images (B, E)."""
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
        at, sources = f"layer{stage}.{block}.", self._blocks[stage - 1]
        source = sources[block]
        pool = self._student.get_submodule(f"layer{stage}")[block].avgpool
        inner, wanted = streams, parents
        for number in (1, 2):
            wanted = [_normed(layer[source], f"conv{number}", f"bn{number}", x) for x in wanted]
            inner = self._fit(f"{at}conv{number}", f"{at}bn{number}", inner, self._kept_of(wanted, f"{at}inner{number}"))
            wanted, inner = [x.relu() for x in wanted], [x.relu() for x in inner]
        end = sources[block + 1] if block + 1 < len(sources) else len(layer)
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
