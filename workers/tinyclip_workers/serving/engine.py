"""Engines: what computes a student's embeddings. One today, torch; the interface is all that the service knows.

Shapes: B batch, C channels, H height, W width, T tokens, E embedding size.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import fsspec
import numpy as np
import numpy.typing as npt
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor

from tinyclip_workers.model_folder import LAYOUT_FILE, OWN_WEIGHTS_FILE, PREPROCESS_FILE, load_folder
from tinyclip_workers.towers import Model, encode_text

Matrix = npt.NDArray[np.float32]
Opened = tuple[Model, Callable[[Sequence[str]], Tensor], dict[str, Any]]
"""A model, its tokenizer, and the settings of open_clip's `PreprocessCfg`."""

MODEL_FILES = ("open_clip_config.json", "open_clip_model.safetensors")
OWN_MODEL_FILES = (LAYOUT_FILE, PREPROCESS_FILE, OWN_WEIGHTS_FILE)
"""Of a student whose blocks differ in size."""


class Engine(Protocol):
    """A loaded model. Its methods block and are called from worker threads, `encode_*` from one at a time."""

    name: str
    embed_dim: int
    logit_scale: float
    """The model's own similarity multiplier (inverse temperature)."""

    def preprocess(self, image: Image.Image) -> Tensor:
        """One RGB picture as the tower's input (C, H, W)."""
        ...

    def encode_image(self, images_BCHW: Tensor) -> Matrix:
        """(B, E), L2-normalised."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Matrix:
        """(B, E), L2-normalised; texts longer than the context are cut."""
        ...


class TorchEngine:
    """open_clip's model as it is, or our own towers where blocks differ in size; in fp32 and evaluation mode."""

    name = "torch"

    def __init__(self, folder: Path, device: str | None = None) -> None:
        """`folder` holds the model in open_clip's layout or ours; device null: CUDA where there is one."""
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model, self._tokenize, preprocess = _open_clip(folder) if (folder / MODEL_FILES[0]).is_file() else _own(folder)
        self._model = model.to(self._device).eval().requires_grad_(False)
        self._transform: Callable[[Image.Image], Tensor] = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)
        self.logit_scale = float(model.logit_scale.exp())
        self.embed_dim = self.encode_text(["a"]).shape[1]

    def preprocess(self, image: Image.Image) -> Tensor:
        return self._transform(image)

    @torch.inference_mode()
    def encode_image(self, images_BCHW: Tensor) -> Matrix:
        return _normalized(self._model.encode_image(images_BCHW.to(self._device)))

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Matrix:
        tokens_BT = self._tokenize(list(texts)).to(self._device)
        return _normalized(encode_text(self._model, tokens_BT))


def load_engine(model_uri: str, engine: str = "auto") -> Engine:
    """The engine for a model version's folder, which may be local or any fsspec URI (then copied to a temporary folder).

    Raises FileNotFoundError or ValueError naming the folder or the file in it that cannot be used.
    """
    assert engine in ("auto", "torch"), engine
    fs, path = fsspec.core.url_to_fs(model_uri)
    with tempfile.TemporaryDirectory(prefix="tinyclip-model-") as copy:
        folder = Path(path) if "file" in _protocols(fs) else _copied(fs, path, Path(copy))
        own = all((folder / name).is_file() for name in OWN_MODEL_FILES)
        for name in OWN_MODEL_FILES if own else MODEL_FILES:
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{model_uri} is not a model version: it has no {name}")
        if not own:
            _check_config(model_uri, folder / MODEL_FILES[0])
        return TorchEngine(folder)


def _open_clip(folder: Path) -> Opened:
    name = f"local-dir:{folder}"
    model = open_clip.create_model(name, require_pretrained=True)
    return model, open_clip.get_tokenizer(name), model.visual.preprocess_cfg


def _own(folder: Path) -> Opened:
    loaded = load_folder(str(folder))
    preprocess = json.loads((folder / PREPROCESS_FILE).read_text("utf-8"))
    return loaded.model, lambda texts: loaded.tokenizer([*texts]), {"size": loaded.layout.image.image_size, **preprocess}


def _protocols(fs: Any) -> Sequence[str]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _copied(fs: Any, path: str, target: Path) -> Path:
    """All files of the folder (the tokenizer may be one of them)."""
    for file in fs.find(path):
        local = target / file[len(path.rstrip("/")) + 1 :]
        local.parent.mkdir(parents=True, exist_ok=True)
        fs.get_file(file, str(local))
    return target


def _check_config(model_uri: str, path: Path) -> None:
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{model_uri}/{path.name} is not JSON: {error}") from error
    if not isinstance(config, dict) or "model_cfg" not in config:
        raise ValueError(f"{model_uri}/{path.name} has no model_cfg, so it does not describe an open_clip model")


def _normalized(features_BE: Tensor) -> Matrix:
    matrix: Matrix = F.normalize(features_BE.float(), dim=-1).cpu().numpy()
    return matrix
