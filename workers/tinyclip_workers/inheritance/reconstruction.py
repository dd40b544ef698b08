"""Least-squares reconstruction: the remaining output matrices are fitted to what the parent computed.

What is removed can largely be expressed by what remains. Block after block, the output projections of attention and MLP are
fitted, in closed form, so that the student's residual stream on the calibration pairs is the parent's, and at the end the
projection to the embedding is fitted to the teacher's. A fit sees the student's own activations, so it also corrects what the
blocks before it could not, and a block after which others were removed is fitted to the stream behind these. Layer-wise fits of
this kind: Frantar & Alistarh 2022, arXiv 2208.11580; Kurtic et al. 2023, ZipLM, arXiv 2302.04089.

Shapes: R rows (tokens of calibration pairs), M inputs and D outputs of a matrix, d and w widths of parent and student, B pairs of
a part, E embedding size.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from tinyclip_workers.inheritance.streams import TransformerTower, attend, transform
from tinyclip_workers.model.blocks import Block, OutputBias

SMALLEST_GAIN = 0.1
"""Gain of a direction, relative to the largest of a matrix, from which `input_for` uses it."""
RIDGE = 0.1
"""Weight of the distance to the inherited matrix, relative to the mean square of an input."""


class LeastSquares:
    """Accumulates rows, then corrects a linear map so that it fits them best: it minimises
    sum |input @ (weight + change).T + bias - target|^2 + ridge * mean square input * rows * |change|^2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self._rows = 0
        self._squares = torch.zeros(inputs, inputs, dtype=torch.float64)
        self._products = torch.zeros(inputs, outputs, dtype=torch.float64)
        self._inputs = torch.zeros(inputs, dtype=torch.float64)
        self._targets = torch.zeros(outputs, dtype=torch.float64)

    def add(self, inputs_RM: Tensor, targets_RD: Tensor) -> None:
        """Add rows; products are summed in fp64."""
        self._rows += len(inputs_RM)
        self._squares += (inputs_RM.T @ inputs_RM).cpu()
        self._products += (inputs_RM.T @ targets_RD).cpu()
        self._inputs += inputs_RM.sum(0).cpu()
        self._targets += targets_RD.sum(0).cpu()

    def solve(self, weight_DM: Tensor, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
        """Return the corrected weight (D, M) and the bias (D,), in fp64 on the CPU."""
        weight = weight_DM.detach().cpu().double()
        mean_M, mean_D = self._inputs / self._rows, self._targets / self._rows
        squares = self._squares - self._rows * torch.outer(mean_M, mean_M)
        products = self._products - self._rows * torch.outer(mean_M, mean_D)
        damped = squares + ridge * squares.diagonal().mean().clamp(min=1e-12) * torch.eye(len(squares), dtype=torch.float64)
        change = torch.linalg.solve(damped, products - squares @ weight.T).T
        weight = weight + change
        return weight, mean_D - weight @ mean_M

    def moments(self, weight_DM: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each output of a map of the rows that were added."""
        weight, mean_M = weight_DM.detach().cpu().double(), self._inputs / self._rows
        covariance = self._squares / self._rows - torch.outer(mean_M, mean_M)
        return weight @ mean_M, ((weight @ covariance) * weight).sum(1)


class Reconstruction:
    """The fit of a student's transformer tower to its parent's, in place."""

    def __init__(
        self, student: TransformerTower, parent: TransformerTower, inputs: list[Tensor], to_student: Callable[[Tensor], Tensor]
    ) -> None:
        """`to_student` maps the parent's residual stream (…, d) to the student's (…, w)."""
        self._student, self._parent, self._inputs, self._to_student = student, parent, inputs, to_student

    @torch.no_grad()
    def fit(self, blocks: Sequence[int], embeddings: list[Tensor]) -> None:
        """Fit every output matrix. `blocks` are the parent's blocks that the student has; `embeddings` (B, E) the targets of each
        part of the inputs, in the length that the student's should have."""
        self._wanted = [self._parent.start(part) for part in self._inputs]
        self._streams = [self._student.start(part) for part in self._inputs]
        passed = 0
        for number, own in enumerate(self._student.blocks):
            source = self._parent.blocks[blocks[number]]
            self._advance(passed, blocks[number])
            self._wanted = [attend(source, stream) for stream in self._wanted]
            self._fit(own.attn.out_proj, partial(_head_outputs, own))
            self._streams = [attend(own, stream) for stream in self._streams]
            self._wanted = [transform(source, stream) for stream in self._wanted]
            passed = blocks[number + 1] if number + 1 < len(blocks) else len(self._parent.blocks)
            self._advance(blocks[number] + 1, passed)
            self._fit(own.mlp.c_proj, partial(_activations, own))
            self._streams = [transform(own, stream) for stream in self._streams]
        self._fit_pooling()
        self._fit_projection(embeddings)

    def _advance(self, first: int, end: int) -> None:
        """Let the parent's streams pass its blocks from `first` to before `end`."""
        for block in self._parent.blocks[first:end]:
            self._wanted = [transform(block, attend(block, stream)) for stream in self._wanted]

    def _fit(self, output: nn.Linear | OutputBias, features: Callable[[Tensor], Tensor]) -> None:
        """Fit one output matrix to the difference of the streams; of a branch without units, its constant."""
        weight_DM = output.weight if isinstance(output, nn.Linear) else output.bias.new_zeros(len(output.bias), 0)
        sums = LeastSquares(weight_DM.shape[1], weight_DM.shape[0])
        for inputs, stream, wanted in zip(self._inputs, self._streams, self._wanted, strict=True):
            used = self._student.used(inputs)
            difference_RD = _rows(self._to_student(wanted) - stream, used)
            read_RM = _rows(features(stream), used) if isinstance(output, nn.Linear) else difference_RD[:, :0]
            sums.add(read_RM, difference_RD)
        weight, bias = sums.solve(weight_DM)
        weight_DM.copy_(weight)
        output.bias.copy_(bias)

    def _fit_pooling(self) -> None:
        """Fit the output matrices of attention pooling, whose result has the parent's width and basis."""
        pool, source = self._student.pool, self._parent.pool
        if pool is None or source is None:
            return
        own = [self._student.final_norm(stream) for stream in self._streams]
        there = [self._parent.final_norm(stream) for stream in self._wanted]
        wanted = [source.out_proj(source.head_outputs(stream)) for stream in there]
        _fit_rows(pool.out_proj, [pool.head_outputs(stream) for stream in own], wanted)
        found = [pool.out_proj(pool.head_outputs(stream)) for stream in own]
        missing = [source.transform(theirs) - ours for theirs, ours in zip(wanted, found, strict=True)]
        _fit_rows(pool.mlp.c_proj, [pool.mlp.activations(pool.ln(ours)) for ours in found], missing)

    def _fit_projection(self, embeddings: list[Tensor]) -> None:
        """Fit the map to the embedding. CLIP's has no bias: the constant is added before it, by the last layer that can."""
        projection = self._student.projection
        sums = LeastSquares(projection.shape[0], projection.shape[1])
        for inputs, stream, target in zip(self._inputs, self._streams, embeddings, strict=True):
            sums.add(self._student.summary(inputs, stream), target)
        weight_EM, constant_E = sums.solve(projection.T)
        projection.copy_(weight_EM.T)
        _add_constant(self._student, weight_EM, constant_E)


def _add_constant(tower: TransformerTower, weight_EM: Tensor, constant_E: Tensor) -> None:
    """Add a constant to a tower's embeddings, where its projection `weight_EM` has no bias by what is projected."""
    own_E = tower.clip.text_projection_bias if tower.tower == "text" else None
    if own_E is not None:
        own_E.copy_(constant_E)
        return
    bias = tower.final_norm.bias if tower.pool is None else tower.pool.mlp.c_proj.bias
    bias.add_(input_for(weight_EM, constant_E).to(bias))


def _fit_rows(output: nn.Linear | OutputBias, read: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Fit a linear layer that reads one row of each pair."""
    assert isinstance(output, nn.Linear), "pooling keeps its units"
    sums = LeastSquares(output.in_features, output.out_features)
    for inputs_BM, targets_BD in zip(read, wanted, strict=True):
        sums.add(inputs_BM, targets_BD)
    weight, bias = sums.solve(output.weight)
    output.weight.copy_(weight)
    output.bias.copy_(bias)


def input_for(weight_EM: Tensor, constant_E: Tensor) -> Tensor:
    """Return a small input (M,) whose image under a matrix is nearest to a constant.

    Directions that the matrix hardly maps are not used: a large input along them has no effect now, but has one after a step of
    training.
    """
    solved: Tensor = torch.linalg.lstsq(weight_EM, constant_E[:, None], rcond=SMALLEST_GAIN, driver="gelsd").solution
    return solved[:, 0]


def _head_outputs(block: Block, stream_BTd: Tensor) -> Tensor:
    return block.attn.head_outputs(stream_BTd if block.ln_1 is None else block.ln_1(stream_BTd))


def _activations(block: Block, stream_BTd: Tensor) -> Tensor:
    return block.mlp.activations(stream_BTd if block.ln_2 is None else block.ln_2(stream_BTd))


def _rows(x_BTM: Tensor, used_BT: Tensor | None) -> Tensor:
    return x_BTM.flatten(0, 1) if used_BT is None else x_BTM[used_BT]
