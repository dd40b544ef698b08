"""Architectures of open_clip: SigLIP, EVA02, MobileCLIP, ConvNeXt, CoCa, Hugging Face text towers, and all others."""

import copy
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from tinyclip.schemas.layouts import Architecture
from torch import nn

IMAGE_SIZE, CONTEXT_LENGTH, VOCAB_SIZE = 224, 77, 49408
"""open_clip's defaults of a configuration."""
TEXT_CONFIG = "hf_config"
"""Our addition to a `text_cfg` with `hf_model_name`: the configuration of that text tower, without which it cannot be built."""
FAMILIES = {
    "siglip": "SigLIP", "eva02": "EVA02", "eva_": "EVA", "fastvit": "MobileCLIP", "mobileclip": "MobileCLIP",
    "vit_base_mci": "MobileCLIP", "convnext": "ConvNeXt", "vitamin": "ViTamin", "PE-": "PE",
}  # fmt: skip
"""Name of a family by a part of the name of its image tower."""
_TIMM_NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)


def describe_config(model_cfg: dict[str, Any], text_config: dict[str, Any] | None = None) -> Architecture:
    """Return the architecture of an open_clip `model_cfg`; `text_config`: of its Hugging Face text tower, if it has one.

    Raises ValueError with the reason and the remedy for one that cannot be built.
    """
    config = copy.deepcopy(model_cfg)
    vision, text = config["vision_cfg"], config["text_cfg"]
    _check_names(vision, text)
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False  # weights come from the file of the whole model
        vision["timm_drop_path"] = 0.0  # a pass is repeated in training: it must not be random
    vision.pop("patch_dropout", None)
    if text.get("hf_model_name"):
        text["hf_model_pretrained"] = False
        text[TEXT_CONFIG] = text.get(TEXT_CONFIG) or text_config or _cached_text_config(str(text["hf_model_name"]))
    return Architecture(
        library="open_clip",
        family=_family(config),
        config=config,
        embed_dim=config["embed_dim"],
        image_size=_image_size(vision),
        context_length=text.get("context_length", CONTEXT_LENGTH),
        vocab_size=(text.get(TEXT_CONFIG) or {}).get("vocab_size") or text.get("vocab_size", VOCAB_SIZE),
    )


def build_open_clip(config: dict[str, Any]) -> nn.Module:
    """Build a model as `open_clip.create_model` does, with random weights and without network. Raises ValueError."""
    model_cfg = copy.deepcopy(config)
    custom = model_cfg.pop("custom_text", False)
    text_config = model_cfg["text_cfg"].pop(TEXT_CONFIG, None)
    kind = CLIP
    if custom or text_config is not None:
        kind = CoCa if "multimodal_cfg" in model_cfg else CustomTextCLIP
    with tempfile.TemporaryDirectory(prefix="tinyclip-text-tower-") as folder:
        if text_config is not None:
            (Path(folder) / "config.json").write_text(json.dumps(text_config))
            model_cfg["text_cfg"]["hf_model_name"] = folder
        try:
            model: nn.Module = kind(**model_cfg)
        except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"open_clip {_version()} cannot build this model: {_first_line(error)}") from error
    if isinstance(model, CoCa):
        model.text_decoder.requires_grad_(False)  # it writes captions, and is no part of the embeddings
    return model


def _check_names(vision: dict[str, Any], text: dict[str, Any]) -> None:
    """Refuse names that libraries would take for addresses: of the hub's configurations, or of files. Raises ValueError."""
    name = vision.get("timm_model_name")
    if name is not None and not (isinstance(name, str) and _TIMM_NAME.fullmatch(name)):
        raise ValueError("vision_cfg.timm_model_name is not the name of a model of timm; correct it")
    name = text.get("hf_model_name")
    if name is not None and not (isinstance(name, str) and _HUB_NAME.fullmatch(name) and ".." not in name):
        raise ValueError("text_cfg.hf_model_name is not the name of a model of the hub; correct it")


def _cached_text_config(name: str) -> dict[str, Any]:
    """Return the configuration of a text tower from the local cache or the hub. Raises ValueError naming the file to provide."""
    from transformers import AutoConfig  # takes a second

    if Path(name).exists():  # transformers would read that folder
        raise ValueError(f"the name of the text tower, {name}, is that of a local file; rename the file")
    try:
        found: dict[str, Any] = AutoConfig.from_pretrained(name).to_dict()
    except Exception as error:  # transformers and its hub client raise anything here
        raise ValueError(
            f"the text tower {name} is not in the local cache and the hub does not provide it ({_first_line(error)}); "
            "put its config.json into the model's folder, or log in"
        ) from error
    return found


def _image_size(vision: dict[str, Any]) -> int:
    size = vision.get("image_size", IMAGE_SIZE)
    sides = size if isinstance(size, list | tuple) else [size]
    if len(set(sides)) != 1:
        raise ValueError("vision_cfg.image_size has different sides; only square images are supported")
    return int(sides[0])


def _family(config: dict[str, Any]) -> str:
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "multimodal_cfg" in config:
        return "CoCa"
    tower = str(vision.get("timm_model_name") or "")
    named = next((family for part, family in FAMILIES.items() if part.lower() in tower.lower()), None)
    if named == "SigLIP" and text.get("vocab_size", 0) > 200_000:
        named = "SigLIP 2" if "act_kwargs" in text or text.get("vocab_size") == 256_000 else "SigLIP"
    if text.get("hf_model_name"):
        return f"{named or 'CLIP'} with the text tower {text['hf_model_name']}"
    return named or (f"CLIP with {tower}" if tower else "CLIP")


def _version() -> str:
    from open_clip import __version__

    return str(__version__)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
