"""Small models of other architectures with random weights, built from configurations of their libraries, in folders."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from timm.models import Eva, VisionTransformer, register_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPModel, RobertaConfig, SiglipConfig, SiglipModel

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "a", "red", "blue", "green", "square", "circle", "photo", "of", "emoji", "the", "in"]
TEXT = {"context_length": 16, "width": 32, "heads": 2, "layers": 2}

OPEN_CLIP: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "SigLIP": ("ViT-B-16-SigLIP", {"image_size": 64, "timm_model_name": "vit_tiny_siglip_64"}, {**TEXT, "vocab_size": 64}),
    "SigLIP 2": ("ViT-B-16-SigLIP2", {"image_size": 64, "timm_model_name": "vit_tiny_siglip2_64"}, {**TEXT, "vocab_size": 64}),
    "EVA02": ("EVA02-B-16", {"image_size": 224, "timm_model_name": "eva02_short_224"}, TEXT),
    "MobileCLIP": ("MobileCLIP-S1", {"image_size": 64, "timm_model_name": "fastvit_t8"}, TEXT),
    "ConvNeXt": ("convnext_base", {"image_size": 64, "timm_model_name": "convnext_atto"}, TEXT),
    "CoCa": ("coca_ViT-B-32", {"image_size": 64, "width": 64, "layers": 2}, TEXT),
    "RoBERTa": ("roberta-ViT-B-32", {"image_size": 64, "width": 64, "layers": 2}, {"context_length": 16}),
}
"""Name of an open_clip configuration, and changes that make its towers small, by family."""
TRANSFORMERS = ("transformers CLIP", "transformers SigLIP")
FAMILIES = (*OPEN_CLIP, *TRANSFORMERS)
PREPROCESS = {"mean": [0.5, 0.45, 0.4], "std": [0.3, 0.25, 0.2], "interpolation": "bilinear", "resize_mode": "squash"}


def _tiny_siglip(**settings: Any) -> Any:
    sizes = {"patch_size": 16, "embed_dim": 64, "depth": 3, "num_heads": 2, "class_token": False, "global_pool": "map"}
    return VisionTransformer(**{"img_size": 64, **sizes, **_known(settings)})


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in ("act_layer", "global_pool", "img_size", "num_classes")}


@register_model
def vit_tiny_siglip_64(**settings: Any) -> Any:
    """A small one of SigLIP's image towers, of which timm has none."""
    return _tiny_siglip(**settings)


@register_model
def vit_tiny_siglip2_64(**settings: Any) -> Any:
    """The same with the activation of some sizes of SigLIP 2."""
    return _tiny_siglip(act_layer="gelu_tanh", **settings)


@register_model
def eva02_short_224(**settings: Any) -> Any:
    """A tower of EVA02 with two blocks: images of 224 pixels, read in a moment."""
    sizes = {"img_size": 224, "patch_size": 14, "embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 8 / 3}
    rotary = {"swiglu_mlp": True, "use_rot_pos_emb": True, "ref_feat_shape": (16, 16)}
    return Eva(**{**sizes, **rotary, **_known(settings)})


def write_family(folder: Path, family: str) -> Any:
    """Write the folder of a model with random weights as its library would; returns the library's model."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(len(family))
    if family in TRANSFORMERS:
        return _write_transformers(folder, family)
    name, vision, text = OPEN_CLIP[family]
    config = copy.deepcopy(open_clip.get_model_config(name))
    config["vision_cfg"] |= vision
    config["text_cfg"] |= text
    config["embed_dim"] = 64 if family.startswith("SigLIP") else 24
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= {**TEXT, "context_length": 16}
    if config["text_cfg"].get("hf_model_name"):
        _write_text_tower(folder)
    if config["text_cfg"].get("hf_tokenizer_name"):
        write_word_tokenizer(folder)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}))
    model = library_model(folder)
    save(model, folder / "open_clip_model.safetensors")
    return model


def library_model(folder: Path) -> Any:
    """Build the model of an open_clip configuration as open_clip does, without weights of its towers."""
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    if config["text_cfg"].get("hf_model_name"):
        config["text_cfg"]["hf_model_name"] = str(folder)
    open_clip.factory._MODEL_CONFIGS["of-a-test"] = config
    try:
        return open_clip.create_model("of-a-test", pretrained_image=False, pretrained_text=False).eval()
    finally:
        del open_clip.factory._MODEL_CONFIGS["of-a-test"]


def save(model: torch.nn.Module, path: Path) -> None:
    """Save a model whose tensors are made distinct: random initialisation alone leaves all embeddings alike."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim > 1 and "positional" not in name:
                tensor.mul_(1.5)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


def write_word_tokenizer(folder: Path, words: list[str] | None = None) -> None:
    """Write a tokenizer of whole words in the files of transformers."""
    vocabulary = {word: id for id, word in enumerate(words or WORDS)}
    made = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    special = [("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    made.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=special)
    made.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>",
        "eos_token": "</s>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _write_text_tower(folder: Path) -> None:
    config = RobertaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32, pad_token_id=0,
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**config.to_dict(), "model_type": "roberta"}))


def _write_transformers(folder: Path, family: str) -> Any:
    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64,
        "max_position_embeddings": 16, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 48,
        "patch_size": 16,
    }  # fmt: skip
    settings: dict[str, Any] = {"image_mean": PREPROCESS["mean"], "image_std": PREPROCESS["std"], "resample": 2}
    if family == "transformers CLIP":
        model: Any = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
        settings["size"] = {"shortest_edge": 48}
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval()
        settings["size"] = {"height": 48, "width": 48}
    write_word_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict(), default=str))
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    save(model, folder / "model.safetensors")
    return model


def library_embeddings(model: Any, images_BCHW: torch.Tensor, tokens_BT: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """Return normalised embeddings by the library's own methods."""
    with torch.no_grad():
        if hasattr(model, "get_image_features"):
            image = model.get_image_features(pixel_values=images_BCHW).pooler_output
            text = model.get_text_features(input_ids=tokens_BT).pooler_output
        else:
            image, text = model.encode_image(images_BCHW), model.encode_text(tokens_BT)
    return {"image": torch.nn.functional.normalize(image, dim=-1), "text": torch.nn.functional.normalize(text, dim=-1)}
