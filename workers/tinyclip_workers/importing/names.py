"""From the names that a checkpoint's program used to open_clip's (METHOD sections 1 and 9, F13)."""

import re
from collections.abc import Mapping

import torch
from tinyclip.schemas.layouts import Layout
from torch import Tensor

OFFICIAL = re.compile(r"(?:_image_encoder|_text_encoder|_logit_scale|(?:image|text)_encoder_without_ddp)\.(?:module\.)*(.+)")
"""The published program's modules; the rest of a name is open_clip's. `module` appears where DDP wrapped them."""
WITHOUT_DDP = re.compile(r"(?:image|text)_encoder_without_ddp\.")
WRAPPED = ("module.", "_orig_mod.")
"""What DDP and torch.compile put before every name."""
NO_WEIGHTS = ("attn_mask", "input_resolution", "context_length", "vocab_size")
"""Entries of older files that a model's configuration says anyway."""


class UnknownNames(ValueError):
    """A state dict that is not of a CLIP model as we know it."""


def open_clip_names(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool, list[str]]:
    """The state dict under open_clip's names, whether it is the published program's, and what to be warned of.

    Raises UnknownNames for a state dict of another kind, and for one whose masks are not folded yet.
    """
    state = _without_wrappers(state)
    masks = next((name for name in state if "l0_module" in name), None)
    if masks is not None:
        raise UnknownNames(f"has {masks}: its masks are not folded yet; use a checkpoint of after the prune step")
    warnings: list[str] = []
    official = any(OFFICIAL.fullmatch(name) for name in state)
    if official:
        state, warnings = _from_official(state)
    elif "token_embedding.weight" not in state:
        state = {name.removeprefix("text."): tensor for name, tensor in state.items()}  # open_clip's CustomTextCLIP
    named = {name: tensor for name, tensor in state.items() if name not in NO_WEIGHTS}
    _expect_clip(named)
    if named["logit_scale"].numel() == 1:
        named["logit_scale"] = named["logit_scale"].reshape(())
    return named, official, warnings


def settle_gone_branches(state: dict[str, Tensor], layout: Layout) -> None:
    """Bring blocks that lost all heads or MLP units to our form: of such a branch only its output bias is left.

    The published program drops the bias of an attention without heads (F2), so there the constant is 0.
    """
    for prefix, tower in (("visual.", layout.image), ("", layout.text)):
        for layer, (heads, units) in enumerate(zip(tower.heads or [], tower.mlp or [], strict=True)):
            block = f"{prefix}transformer.resblocks.{layer}."
            if heads == 0:
                _leave_bias(state, (f"{block}ln_1.", f"{block}attn."), f"{block}attn.out_proj.bias", tower.width)
            if units == 0:
                _leave_bias(state, (f"{block}ln_2.", f"{block}mlp."), f"{block}mlp.c_proj.bias", tower.width)


def _leave_bias(state: dict[str, Tensor], branch: tuple[str, ...], bias: str, width: int) -> None:
    kept = state.get(bias, torch.zeros(width))
    for name in [name for name in state if name.startswith(branch)]:
        del state[name]
    state[bias] = kept


def _without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = dict(state)
    while prefix := next((p for p in WRAPPED if all(name.startswith(p) for name in found)), None):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _from_official(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Every encoder tensor may be there twice (F13); where the two differ, `…_without_ddp` is what the program itself loads."""
    named: dict[str, Tensor] = {}
    differing: list[str] = []
    for name, tensor in sorted(state.items(), key=lambda item: WITHOUT_DDP.match(item[0]) is not None):
        found = OFFICIAL.fullmatch(name)
        short = found[1] if found else name
        if short in named and not _same(named[short], tensor):
            differing.append(short)
        named[short] = tensor
    if not differing:
        return named, []
    count = f"{len(differing)} tensors are there twice and differ, as {differing[0]}"
    return named, [f"{count}; those of the encoders without DDP were taken"]


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _expect_clip(state: Mapping[str, Tensor]) -> None:
    if any(name.startswith(("vision_model.", "text_model.")) for name in state):
        raise UnknownNames("is a model of the transformers library; load it in open_clip and save that one's state dict")
    for needed in ("logit_scale", "token_embedding.weight", "text_projection", "visual.conv1.weight"):
        if needed not in state:
            first = ", ".join(list(state)[:3])
            raise UnknownNames(f"has no tensor {needed}, so it is not the state dict of a CLIP model; its first are {first}")
