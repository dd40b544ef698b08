"""Models of libraries in our own towers compute what they do in their library."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from tinyclip.schemas.layouts import Architecture, Layout
from tinyclip_workers.model.architecture import any_layout_from_config, transformers_architecture
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.libraries.own_towers import own_layout, own_state
from tinyclip_workers.model.libraries.transformers_models import build_transformers
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.model.towers import Clip
from torch import nn

from tests.workers.families import FAMILIES, library_embeddings, write_family
from tests.workers.models import tiny_layout

CONVERTED = ("SigLIP", "SigLIP 2", "transformers SigLIP")


def distinct(model: nn.Module) -> None:
    """Give every parameter an effect: many are 0 or 1 before training."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def assert_same(model: Any, architecture: Architecture) -> Clip:
    """Assert that our towers have the model's embeddings, before and after every parameter was changed; return ours."""
    layout = own_layout(architecture)
    assert layout is not None
    distinct(model)
    ours = Clip(layout).eval()
    ours.load_state_dict(own_state(architecture, model.state_dict()))
    size, length = architecture.image_size, architecture.context_length
    images_BCHW = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    tokens_BT = torch.randint(3, layout.vocab_size - 1, (3, length), generator=torch.Generator().manual_seed(2))
    tokens_BT[:, length // 2] = layout.vocab_size - 1  # the end of the text, for CLIP

    expected, found = (library_embeddings(each, images_BCHW, tokens_BT) for each in (model.eval(), ours))

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found["image"][0] - found["image"][1]).abs().max() > 1e-3
    assert (found["text"][0] - found["text"][1]).abs().max() > 1e-3
    return ours


@pytest.mark.parametrize("family", CONVERTED)
def test_towers_like_siglips_compute_the_same(tmp_path: Path, family: str) -> None:
    write_family(tmp_path, family)
    loaded = load_folder(str(tmp_path))
    assert isinstance(loaded.layout, Architecture)

    ours = assert_same(loaded.model, loaded.layout)

    assert ours.layout.is_siglip
    assert not ours.layout.is_uniform
    assert ours.layout.logit_bias


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip_of_transformers_computes_the_same(activation: str) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {**sizes, "hidden_act": activation}
    text = {**sizes, "vocab_size": 64, "max_position_embeddings": 16, "eos_token_id": 2}
    vision = {**sizes, "image_size": 48, "patch_size": 16}
    config = {"model_type": "clip", "text_config": text, "vision_config": vision, "projection_dim": 24}

    ours = assert_same(build_transformers(config), transformers_architecture(config))

    assert ours.layout.is_uniform
    assert ours.layout.quick_gelu == (activation == "quick_gelu")


def test_clip_of_transformers_with_another_end_of_text_has_none() -> None:
    config = {"model_type": "clip", "text_config": {"eos_token_id": 3}, "vision_config": {}}

    assert own_layout(transformers_architecture(config)) is None


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in CONVERTED])
def test_other_families_have_none(tmp_path: Path, family: str) -> None:
    write_family(tmp_path, family)

    assert own_layout(load_folder(str(tmp_path)).layout) is None


@pytest.mark.parametrize("tower", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "deit3_small_patch16_224"])
def test_other_image_towers_that_are_pooled_by_attention_have_none(tower: str) -> None:
    config = open_clip.get_model_config("ViT-B-16-SigLIP")
    config["vision_cfg"]["timm_model_name"] = tower
    config["embed_dim"] = 384 if "small" in tower else 192

    assert own_layout(any_layout_from_config(config)) is None


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "ViT-B-32-SigLIP2-256", "ViT-SO400M-16-SigLIP-i18n-256"])
def test_published_sizes_of_siglip_have_one_with_as_many_parameters(name: str) -> None:
    architecture = any_layout_from_config(open_clip.get_model_config(name))
    layout = own_layout(architecture)
    assert layout is not None

    ours, theirs = summarize(layout), summarize(architecture)

    pool = layout.image.pool
    assert pool is not None
    query, identity = pool.width**2 + pool.width, pool.width**2  # ours has the query itself, and a projection
    assert ours.image_params == theirs.image_params - query + identity
    assert ours.macs == pytest.approx(theirs.macs, rel=0.01)


def test_a_layout_of_ours_is_its_own() -> None:
    layout = tiny_layout()
    assert isinstance(layout, Layout)

    assert own_layout(layout) == layout
