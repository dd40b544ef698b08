"""Rename the tensors of a checkpoint to open_clip's names (METHOD sections 1 and 9, F13)."""

import re
from collections.abc import Mapping

import torch
from tinyclip.schemas.layouts import Layout
from torch import Tensor

from tinyclip_workers.model.files.headers import shown_name

OFFICIAL = re.compile(r"(?:_image_encoder|_text_encoder|_logit_scale|(?:image|text)_encoder_without_ddp)\.(?:module\.)*(.+)")
"""Modules of the official implementation; the rest of a name is open_clip's. DDP adds `module`."""
WITHOUT_DDP = re.compile(r"(?:image|text)_encoder_without_ddp\.")
WRAPPED = ("module.", "_orig_mod.")
"""Prefixes that DDP and torch.compile add to every name."""
NO_WEIGHTS = ("attn_mask", "input_resolution", "context_length", "vocab_size")
"""Entries of older files that duplicate the model's configuration."""


class UnknownTensorNames(ValueError):
    """A state dict that does not belong to a supported CLIP model."""


def to_open_clip_names(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool, list[str]]:
    """Return the state dict under open_clip's names, whether the official implementation wrote it, and warnings.

    Raises UnknownTensorNames for other models and for a state dict whose masks are not folded.
    """
    state = _strip_wrappers(state)
    masks = next((name for name in state if "l0_module" in name), None)
    if masks is not None:
        raise UnknownTensorNames(f"has {shown_name(masks)}: its masks are not folded; use a checkpoint from after the prune step")
    warnings: list[str] = []
    official = any(OFFICIAL.fullmatch(name) for name in state)
    if official:
        state, warnings = _rename_official(state)
    elif "token_embedding.weight" not in state:
        state = {name.removeprefix("text."): tensor for name, tensor in state.items()}  # open_clip's CustomTextCLIP
    named = {name: tensor for name, tensor in state.items() if name not in NO_WEIGHTS}
    _expect_clip(named)
    if named["logit_scale"].numel() == 1:
        named["logit_scale"] = named["logit_scale"].reshape(())
    return named, official, warnings


def reduce_removed_branches(state: dict[str, Tensor], layout: Layout) -> None:
    """Reduce branches without heads or MLP units to their output bias, in place.

    The official implementation drops the bias of an attention without heads (F2), so that bias is 0.
    """
    for prefix, tower in (("visual.", layout.image), ("", layout.text)):
        for layer, (heads, units) in enumerate(zip(tower.heads or [], tower.mlp or [], strict=True)):
            block = f"{prefix}transformer.resblocks.{layer}."
            if heads == 0:
                _keep_only_bias(state, (f"{block}ln_1.", f"{block}attn."), f"{block}attn.out_proj.bias", tower.width)
            if units == 0:
                _keep_only_bias(state, (f"{block}ln_2.", f"{block}mlp."), f"{block}mlp.c_proj.bias", tower.width)


def _keep_only_bias(state: dict[str, Tensor], branch: tuple[str, ...], bias: str, width: int) -> None:
    kept = state.get(bias, torch.zeros(width))
    for name in [name for name in state if name.startswith(branch)]:
        del state[name]
    state[bias] = kept


def _strip_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stripped = dict(state)
    while prefix := next((p for p in WRAPPED if all(name.startswith(p) for name in stripped)), None):
        stripped = {name.removeprefix(prefix): tensor for name, tensor in stripped.items()}
    return stripped


def _rename_official(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename official tensors; where duplicates of a tensor differ (F13), keep `…_without_ddp`, as that program does."""
    named: dict[str, Tensor] = {}
    differing: list[str] = []
    for name, tensor in sorted(state.items(), key=lambda item: WITHOUT_DDP.match(item[0]) is not None):
        match = OFFICIAL.fullmatch(name)
        short = match[1] if match else name
        known = named.get(short)
        if known is not None and not (known.shape == tensor.shape and torch.equal(known, tensor)):
            differing.append(short)
        named[short] = tensor
    if not differing:
        return named, []
    count = f"{len(differing)} tensors occur twice with different values, for example {shown_name(differing[0])}"
    return named, [f"{count}; those of the encoders without DDP were used"]


def _expect_clip(state: Mapping[str, Tensor]) -> None:
    if any(name.startswith(("vision_model.", "text_model.")) for name in state):
        raise UnknownTensorNames("is a model of the transformers library; load it in open_clip and save its state dict there")
    for required in ("logit_scale", "token_embedding.weight", "text_projection", "visual.conv1.weight"):
        if required not in state:
            first = ", ".join(shown_name(name) for name in list(state)[:3])
            raise UnknownTensorNames(f"has no tensor {required}, so it is not the state dict of a CLIP model; it has {first}, …")
