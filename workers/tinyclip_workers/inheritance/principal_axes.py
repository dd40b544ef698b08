"""A narrower residual stream: the principal axes of the parent's instead of some of its channels.

Every layer of a transformer adds to one residual stream and reads it through a LayerNorm. If the stream is rotated, and all
matrices that write or read it with it, the tower computes the same; after a rotation into principal axes (PCA) the last ones can
be removed at a small loss, while any removed channel of the original basis carries as much as the others (Ashkboos et al. 2024,
SliceGPT, arXiv 2401.15024). Their models have RMSNorm. A LayerNorm also subtracts the mean of all channels, so that the student's
d' channels hold d'-1 axes of the centred stream, in a basis whose vectors have mean 0; the LayerNorm's weights are folded into
the matrices behind it and are 1 afterwards.

Shapes: d width of the parent, w of the student, T tokens, E embedding size.
"""

from collections.abc import Iterator, Sequence

import torch
from tinyclip.schemas.layouts import Layout
from torch import Tensor

from tinyclip_workers.inheritance.reconstruction import input_for
from tinyclip_workers.inheritance.streams import TransformerTower, attend, transform
from tinyclip_workers.model.fold import POOL_READERS, PREFIXES, State, is_pooled
from tinyclip_workers.model.masks import Tower


@torch.no_grad()
def principal_axes(tower: TransformerTower, inputs: list[Tensor], width: int) -> Tensor:
    """Return the map from the parent's stream to that of a student of `width` channels (w, d), fp64 on the CPU.

    It includes the subtraction of the mean. Axes are those of all streams that a LayerNorm reads, each token scaled as by it;
    the tokens that the embedding is read from count as much as all tokens of a layer. The first n channels hold the first n-1
    axes, for any n, so that trailing channels can be removed.
    """
    channels = len(tower.final_norm.weight)
    covariance_dd = torch.zeros(channels, channels, dtype=torch.float64)
    for part in inputs:
        for stream_Rd in _normalised_streams(tower, part):
            covariance_dd += stream_Rd.T @ stream_Rd / len(stream_Rd)
    _, axes_dd = torch.linalg.eigh(covariance_dd)  # ascending
    largest = axes_dd.flip(1)[:, : width - 1].T
    axes_wd: Tensor = _zero_mean_basis(width) @ largest @ _centring(channels)
    return axes_wd


def _normalised_streams(tower: TransformerTower, inputs: Tensor) -> Iterator[Tensor]:
    """Yield what each LayerNorm reads, as rows of mean 0 and variance 1 (R, d), in fp64 on the CPU."""
    stream_BTd, used_BT = tower.start(inputs), tower.used(inputs)
    yield _normalised(_tokens(stream_BTd, used_BT))
    for block in tower.blocks:
        for step in (attend, transform):
            stream_BTd = step(block, stream_BTd)
            yield _normalised(_tokens(stream_BTd, used_BT))
    yield _normalised(tower.read(inputs, stream_BTd))


def _tokens(stream_BTd: Tensor, used_BT: Tensor | None) -> Tensor:
    return stream_BTd.flatten(0, 1) if used_BT is None else stream_BTd[used_BT]


def _normalised(rows_Rd: Tensor) -> Tensor:
    rows_Rd = rows_Rd.cpu().double()
    centred_Rd = rows_Rd - rows_Rd.mean(1, keepdim=True)
    return centred_Rd / centred_Rd.square().mean(1, keepdim=True).sqrt().clamp(min=1e-12)


def _zero_mean_basis(width: int) -> Tensor:
    """Return Helmert's w-1 orthonormal columns, each of mean 0 (w, w-1): column j is 0 below row j+1.

    Channel j+1 is almost axis j alone, so that removing it removes this axis.
    """
    rows, columns = torch.arange(width, dtype=torch.float64)[:, None], torch.arange(1, width, dtype=torch.float64)
    entries: Tensor = torch.where(rows < columns, 1.0, torch.where(rows == columns, -columns, 0.0))
    basis: Tensor = entries / (columns * (columns + 1)).sqrt()
    return basis


def _centring(channels: int) -> Tensor:
    return torch.eye(channels, dtype=torch.float64) - 1 / channels


@torch.no_grad()
def change_basis(state: State, layout: Layout, tower: Tower, axes_wd: Tensor, norm_ratio: float) -> tuple[State, Layout]:
    """Return a tower whose residual stream is `axes_wd` times the parent's; heads and MLP units stay.

    `norm_ratio` is that of `input_norm_ratio`, for the image tower.
    """
    width, parent_width = axes_wd.shape
    new = {name: tensor.detach().cpu().double() for name, tensor in state.items()}
    # Of normalised streams: |axes_wd x| is about |x|, but a LayerNorm scales to the square root of its width.
    back_dw = axes_wd.T * (parent_width / width) ** 0.5
    sizes = layout.image if tower == "image" else layout.text
    for number in range(len(sizes.heads or [])):
        _rotate_block(new, f"{PREFIXES[tower]}transformer.resblocks.{number}.", axes_wd, back_dw)
    if tower == "image":
        _rotate_images(new, axes_wd, back_dw, norm_ratio)
    else:
        _rotate_texts(new, axes_wd, back_dw)
    moved = {name: tensor.to(state[name].device, state[name].dtype) for name, tensor in new.items()}
    return moved, layout.model_copy(update={tower: sizes.model_copy(update={"width": width})})


def _rotate_block(state: State, block: str, axes_wd: Tensor, back_dw: Tensor) -> None:
    for norm, reader in (("ln_1", "attn.in_proj_"), ("ln_2", "mlp.c_fc.")):
        if f"{block}{norm}.weight" in state:
            _rotate_readers(state, block + norm, [block + reader], back_dw)
    for writer in ("attn.out_proj.", "mlp.c_proj."):
        for part in ("weight", "bias"):
            if block + writer + part in state:
                state[block + writer + part] = axes_wd @ state[block + writer + part]


def _rotate_readers(state: State, norm: str, readers: Sequence[str], back_dw: Tensor) -> None:
    """Fold a LayerNorm into the linear layers that read it, given by the beginning of their tensors' names."""
    weight_d, bias_d = _reset_norm(state, norm, back_dw.shape[1])
    for reader in readers:
        matrix = state[f"{reader}weight"]
        state[f"{reader}bias"] = state[f"{reader}bias"] + matrix @ bias_d
        state[f"{reader}weight"] = (matrix * weight_d) @ back_dw


def _rotate_images(state: State, axes_wd: Tensor, back_dw: Tensor, norm_ratio: float) -> None:
    embed_wd = axes_wd
    if "visual.ln_pre.weight" in state:
        weight_d, bias_d = _reset_norm(state, "visual.ln_pre", len(axes_wd))
        # ln_pre's weights act before the rotation: they are moved to what it reads, which changes its norm by about this ratio.
        embed_wd = axes_wd * weight_d @ _centring(len(weight_d))
        state["visual.ln_pre.weight"] *= norm_ratio
        state["visual.ln_pre.bias"] = axes_wd @ bias_d
    for name in ("visual.class_embedding", "visual.positional_embedding", "visual.conv1.bias"):
        if name in state:
            state[name] = state[name] @ embed_wd.T
    state["visual.conv1.weight"] = torch.einsum("wd,dchk->wchk", embed_wd, state["visual.conv1.weight"])
    if is_pooled(state):
        _rotate_readers(state, "visual.ln_post", [f"{name}." for name in POOL_READERS], back_dw)
    else:
        _rotate_end(state, "visual.ln_post", "visual.proj", back_dw)


def _rotate_texts(state: State, axes_wd: Tensor, back_dw: Tensor) -> None:
    for name in ("token_embedding.weight", "positional_embedding"):
        state[name] = state[name] @ axes_wd.T
    _rotate_end(state, "ln_final", "text_projection", back_dw)


def _rotate_end(state: State, norm: str, projection: str, back_dw: Tensor) -> None:
    """Fold the last LayerNorm into the projection; as that has no bias, the constant stays in the LayerNorm, as far as it can."""
    weight_d, bias_d = _reset_norm(state, norm, back_dw.shape[1])
    constant_E = bias_d @ state[projection]
    state[projection] = back_dw.T @ (weight_d[:, None] * state[projection])
    state[f"{norm}.bias"] = input_for(state[projection].T, constant_E)


def _reset_norm(state: State, norm: str, width: int) -> tuple[Tensor, Tensor]:
    """Set a LayerNorm to weight 1 and bias 0; returns what they were."""
    before = state[f"{norm}.weight"], state[f"{norm}.bias"]
    state[f"{norm}.weight"] = torch.ones(width, dtype=torch.float64)
    state[f"{norm}.bias"] = torch.zeros(width, dtype=torch.float64)
    return before


@torch.no_grad()
def input_norm_ratio(clip_images: TransformerTower, inputs: list[Tensor], axes_wd: Tensor) -> float:
    """Return how much longer, per channel, the tokens that `ln_pre` reads are after `change_basis`, as a mean over tokens.

    1 for a tower without it.
    """
    visual = clip_images.image_tower
    if visual.ln_pre is None:
        return 1.0
    weight_d = visual.ln_pre.weight.detach().cpu().double()
    ratios = []
    for part in inputs:
        tokens = visual.tokens(part).cpu().double().flatten(0, 1)
        centred = tokens - tokens.mean(1, keepdim=True)
        rotated = centred * weight_d @ axes_wd.T
        ratios.append((rotated.square().mean(1) / centred.square().mean(1)).sqrt())
    return float(torch.cat(ratios).mean())
