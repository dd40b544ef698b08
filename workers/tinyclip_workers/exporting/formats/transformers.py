"""Export to transformers: `CLIPModel` and `CLIPProcessor` load the folder as it is.

It supports only uniform CLIP models with a ViT. Tensors are renamed, and the projections of attention, one tensor in open_clip,
become three; no value changes.

Shapes: B batch, S image size, L tokens, E embedding size.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from tinyclip.errors import MissingExtra
from tinyclip.schemas import EmbeddingType, ExportOptions
from tinyclip.schemas.layouts import ImageLayout, Layout, TextLayout
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from tinyclip_workers.exporting.check import BATCH
from tinyclip_workers.exporting.tokenizer import hf_tokenizer
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.types import Matrix
from tinyclip_workers.versions.writer import json_bytes

try:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor
except ImportError as error:
    raise MissingExtra("export", "transformers") from error

_RENAMED = {
    r"^visual\.class_embedding$": "vision_model.embeddings.class_embedding",
    r"^visual\.positional_embedding$": "vision_model.embeddings.position_embedding.weight",
    r"^visual\.conv1\.": "vision_model.embeddings.patch_embedding.",
    r"^visual\.ln_pre\.": "vision_model.pre_layrnorm.",
    r"^visual\.ln_post\.": "vision_model.post_layernorm.",
    r"^visual\.transformer\.resblocks\.": "vision_model.encoder.layers.",
    r"^token_embedding\.": "text_model.embeddings.token_embedding.",
    r"^positional_embedding$": "text_model.embeddings.position_embedding.weight",
    r"^ln_final\.": "text_model.final_layer_norm.",
    r"^transformer\.resblocks\.": "text_model.encoder.layers.",
    r"\.ln_([12])\.": r".layer_norm\1.",
    r"\.attn\.": ".self_attn.",
    r"\.c_fc\.": ".fc1.",
    r"\.c_proj\.": ".fc2.",
}
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
"""Matrices that open_clip multiplies from the right and transformers stores as linear layers."""


def export_hf(loaded: LoadedModel, folder: Path, options: ExportOptions) -> None:
    """Write the model, its processor and its tokenizer. Raises RuntimeError for unexpected or missing tensors."""
    assert isinstance(loaded.layout, Layout), "unavailable_formats refuses others"
    tokenizer = hf_tokenizer(loaded)
    model = CLIPModel(hf_config(loaded.layout, tokenizer)).eval()
    model.load_state_dict(hf_state_dict(loaded.model.state_dict()))
    if options.embedding is EmbeddingType.FP16:
        model.text_model.embeddings.token_embedding.half()  # in the file: it is loaded in the type of the configuration, fp32
    model.save_pretrained(folder, max_shard_size="100GB")
    processor = CLIPProcessor(_image_processor(loaded), tokenizer)
    processor.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = {**json.loads(path.read_text("utf-8")), "tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_bytes(json_bytes(config))  # the class name that transformers 4 also knows


def hf_config(layout: Layout, tokenizer: Any) -> Any:
    """Return transformers' configuration of a uniform layout with a ViT, and of its tokenizer."""
    image, text = layout.image, layout.text
    vision = {"image_size": image.image_size, "patch_size": image.patch_size, **_tower(image, layout)}
    return CLIPConfig(
        vision_config=vision,
        text_config={
            "vocab_size": text.vocab_size, "max_position_embeddings": text.context_length, **_tower(text, layout),
            **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")},
        },
        projection_dim=layout.embed_dim,
    )


def hf_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename open_clip's tensors to transformers' names."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in _TRANSPOSED:
            renamed[_TRANSPOSED[name]] = tensor.T.contiguous()
            continue
        for pattern, replacement in _RENAMED.items():
            name = re.sub(pattern, replacement, name)
        if ".in_proj_" in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[name.replace("in_proj_", f"{part}_proj.")] = piece.contiguous()
        elif name != "attn_mask":
            renamed[name] = tensor.contiguous()
    return renamed


class HfModel:
    """An exported folder, loaded as transformers documents."""

    def __init__(self, folder: Path) -> None:
        self._model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
        self._processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)

    def encode_pixels(self, pixels_BCSS: Tensor) -> Matrix:
        return self.encode_images([to_pil_image(pixels_CSS) for pixels_CSS in pixels_BCSS])  # already of the model's size

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Matrix:
        parts = []
        for start in range(0, len(images), BATCH):
            inputs = self._processor(images=list(images[start : start + BATCH]), return_tensors="pt")
            parts.append(self._model.get_image_features(**inputs).pooler_output)
        images_BE: Matrix = F.normalize(torch.cat(parts), dim=-1).numpy()
        return images_BE

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        texts_BE: Matrix = F.normalize(self._model.get_text_features(**self._inputs(texts)).pooler_output, dim=-1).numpy()
        return texts_BE

    def tokenize(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        tokens_BL: npt.NDArray[np.int64] = self._inputs(texts)["input_ids"].numpy()
        return tokens_BL

    def _inputs(self, texts: Sequence[str]) -> Any:
        return self._processor(text=list(texts), return_tensors="pt", padding=True, truncation=True)


def _tower(tower: ImageLayout | TextLayout, layout: Layout) -> dict[str, Any]:
    assert tower.heads and tower.mlp, "a ViT and a text tower have heads and mlp"  # noqa: PT018
    blocks = tower.layers if isinstance(tower.layers, int) else tower.layers[0]
    return {
        "hidden_size": tower.width, "intermediate_size": tower.mlp[0], "num_hidden_layers": blocks,
        "num_attention_heads": tower.heads[0], "projection_dim": layout.embed_dim,
        "hidden_act": "quick_gelu" if layout.quick_gelu else "gelu",
    }


def _image_processor(loaded: LoadedModel) -> Any:
    size = loaded.layout.image_size
    return CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size},
        image_mean=list(loaded.image_mean), image_std=list(loaded.image_std),
    )
