"""Models of transformers: folders of a `CLIPModel` or a `SiglipModel`, with the methods that our towers have.

Names in the state dict are those of transformers.
"""

import copy
from typing import Any

from tinyclip.schemas.layouts import Architecture
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

FAMILIES = {"clip": "CLIP", "siglip": "SigLIP"}
"""Of the models that can be read, by their `model_type`."""


class _Towers:
    """Our names of the methods of a model of transformers."""

    def encode_image(self: Any, images_BCHW: Tensor) -> Tensor:
        """Return image embeddings (B, E), not normalised."""
        return _pooled(self.get_image_features(pixel_values=images_BCHW))

    def encode_text(self: Any, tokens_BT: Tensor) -> Tensor:
        """Return text embeddings (B, E), not normalised."""
        return _pooled(self.get_text_features(input_ids=tokens_BT))

    @property
    def visual(self: Any) -> nn.Module:
        """The image tower."""
        tower: nn.Module = self.vision_model
        return tower

    def set_grad_checkpointing(self: Any, enable: bool = True) -> None:
        """Do as open_clip's models."""
        newer = hasattr(self, "activation_checkpointing_enable")
        getattr(self, f"{'activation' if newer else 'gradient'}_checkpointing_{'enable' if enable else 'disable'}")()


class TransformersClip(_Towers, CLIPModel):
    """A `CLIPModel`."""

    logit_bias = None

    @property
    def trims_padding(self) -> bool:
        """True if the end of a text is its largest token id, after which nothing is read: attention is causal."""
        text: Any = self.config.text_config
        return bool(text.eos_token_id in (2, text.vocab_size - 1))


class TransformersSiglip(_Towers, SiglipModel):
    """A `SiglipModel`, whose texts are read with their padding."""


def describe_transformers(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a `config.json` of transformers. Raises ValueError with the reason and the remedy."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(
            f"has a model of type {str(kind)[:50]}; of transformers' models those of CLIPModel and SiglipModel can be read: "
            "convert it to open_clip's layout"
        )
    full = _config(config)
    vision, text = full.vision_config, full.text_config
    family = FAMILIES[kind]
    return Architecture(
        library="transformers",
        family="SigLIP 2" if family == "SigLIP" and text.vocab_size == 256_000 else family,
        config=copy.deepcopy(config),
        embed_dim=full.projection_dim if kind == "clip" else getattr(text, "projection_size", None) or text.hidden_size,
        image_size=vision.image_size,
        context_length=text.max_position_embeddings,
        vocab_size=text.vocab_size,
    )


def build_transformers(config: dict[str, Any]) -> nn.Module:
    """Build a model with random weights in fp32. Raises ValueError."""
    full = _config(config)
    kind: Any = TransformersClip if config["model_type"] == "clip" else TransformersSiglip
    try:
        model: nn.Module = kind(full).float()
        return model
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"transformers cannot build this model: {str(error).splitlines()[0][:300]}") from error


def _config(config: dict[str, Any]) -> Any:
    kind = CLIPConfig if config["model_type"] == "clip" else SiglipConfig
    try:
        return kind(**{name: value for name, value in config.items() if name not in ("dtype", "torch_dtype")})
    except Exception as error:  # huggingface_hub's validation raises its own errors
        reason = str(error).splitlines()[0][:300]
        raise ValueError(f"has a config.json that transformers cannot use ({reason}); correct it") from error


def _pooled(found: Any) -> Tensor:
    pooled: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return pooled
