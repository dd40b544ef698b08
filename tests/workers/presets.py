"""Small architectures under names of their own among those of open_clip: of the layers of published ones, but few and narrow."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import open_clip
import pytest
from timm.models import convnext, fastvit, register_model

PUBLISHED = {
    "small-MobileCLIP2": ("MobileCLIP2-S0", "fastvit_of_few_layers"),
    "small-ConvNeXt": ("convnext_base", "convnext_of_few_layers"),
}
"""The published architecture, and what replaces its image tower, by the name of the small one."""


@register_model
def fastvit_of_few_layers(**settings: Any) -> Any:
    """The image tower of MobileCLIP2-S0 with one stage of each kind, of a layer.

    With 16 channels torch crashes in the backward pass (channels last).
    """
    stages = {
        "layers": (1, 1), "embed_dims": (32, 64), "mlp_ratios": (3, 3), "downsamples": (False, True),
        "se_downsamples": (False, True), "token_mixers": ("repmixer", "attention"),
        "pos_embs": (None, partial(fastvit.RepConditionalPosEnc, spatial_shape=(7, 7))),
    }  # fmt: skip
    return fastvit.fastvit_mci0(**stages, **settings)


@register_model
def convnext_of_few_layers(**settings: Any) -> Any:
    return convnext.convnext_base(depths=[1, 1, 1, 1], dims=[32, 64, 128, 256], **settings)


@contextmanager
def small_presets() -> Iterator[None]:
    """Let open_clip know the small architectures; a published name always takes those of hundreds of megabytes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, (published, tower) in PUBLISHED.items():
            config = copy.deepcopy(open_clip.get_model_config(published))
            config["vision_cfg"]["timm_model_name"] = tower
            config["text_cfg"] |= {"width": 64, "heads": 2, "layers": 1}
            patch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
        yield
