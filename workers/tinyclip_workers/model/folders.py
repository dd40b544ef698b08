"""Model folders: a registry version, an example's teacher, or any folder in open_clip's layout.

A folder without `open_clip_config.json` holds a student whose blocks differ in size, which open_clip cannot build: then
`layout.json` has its layout and `preprocess.json` its image preprocessing.

A model that was found (`ModelSource`) and one that was loaded (`LoadedModel`) are separate: a plan reads no weights.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from open_clip.factory import load_checkpoint
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load as from_safetensors
from tinyclip.artifacts.paths import MODEL_DOCUMENT
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.layouts import Layout
from torch import Tensor

from tinyclip_workers.model.architecture import build_clip, layout_from_config, state_shapes
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD, Color
from tinyclip_workers.model.towers import Clip, Model
from tinyclip_workers.model.weights import WeightsError, file_digest, load_state_dict, read_header
from tinyclip_workers.runtime.addresses import expect_address
from tinyclip_workers.runtime.filesystems import open_store

CONFIG_FILE = "open_clip_config.json"
LAYOUT_FILE = "layout.json"
PREPROCESS_FILE = "preprocess.json"
"""A file with only the `preprocess_cfg` of an open_clip configuration."""
OWN_WEIGHTS_FILE = "model.safetensors"
COMPACT_FILE = "compact.safetensors"
WEIGHTS_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", OWN_WEIGHTS_FILE, COMPACT_FILE)
"""Names of weights in a folder, in order of preference; the last is our compact form."""
LIMIT_SECONDS = 30.0
"""Time limit for each of the small files of a folder in a remote store."""

Tokenizer = Callable[[str | list[str]], Tensor]
"""Converts texts to token ids (texts, context), int64."""


@dataclass(frozen=True)
class ModelSource:
    """A model that was found but not loaded."""

    name: str
    layout: Layout
    weights: Callable[[], str]
    """Path or URI of the weights; may download them."""
    image_mean: Color = OPENAI_MEAN
    image_std: Color = OPENAI_STD
    published: bool = False
    """Weights from a hub, in any form that open_clip reads, rather than safetensors of exactly this layout."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, with its tokenizer and image normalization."""

    model: Model
    layout: Layout
    tokenizer: Tokenizer
    image_mean: Color
    image_std: Color
    name: str
    digest: str
    """SHA-256 of the weights file."""


def find_folder(uri: str) -> ModelSource:
    """Find a model folder at a path or fsspec URI; its layout is in `layout.json`, if that exists.

    Raises FileNotFoundError, WeightsError or UnsupportedArchitecture, naming the file.
    """
    store = open_store(uri, limit_s=LIMIT_SECONDS)
    names = store.list("")
    if not names:
        raise FileNotFoundError(f"there is no model folder at {uri}; check the path")
    if CONFIG_FILE not in names and not {LAYOUT_FILE, PREPROCESS_FILE} <= set(names):
        raise FileNotFoundError(f"{uri} has no {CONFIG_FILE}; a folder in open_clip's layout is needed, this has {names}")
    weights = next((name for name in WEIGHTS_FILES if name in names), None)
    if weights is None:
        raise FileNotFoundError(f"{uri} has no weights; put one of {', '.join(WEIGHTS_FILES)} there")
    config = _read_json(store, CONFIG_FILE) if CONFIG_FILE in names else {"preprocess_cfg": _read_json(store, PREPROCESS_FILE)}
    layout = _layout_file(store) if LAYOUT_FILE in names else config_layout(config, store.uri(CONFIG_FILE))
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    if MODEL_DOCUMENT in names:
        version = _read_json(store, MODEL_DOCUMENT)
        name = f"{version['name']}@{version['version']}"
    return with_normalization(ModelSource(name, layout, lambda: store.uri(weights)), config.get("preprocess_cfg"))


def load_folder(uri: str) -> LoadedModel:
    """Load a model folder. Raises as `find_folder` does, and WeightsError if weights and layout do not fit."""
    source = find_folder(uri)
    return load_source(source, source.weights())


def make_tokenizer(layout: Layout) -> Tokenizer:
    """Return CLIP's byte-pair tokenizer with the layout's context length."""
    return cast(Tokenizer, SimpleTokenizer(context_length=layout.text.context_length))


def check_weights(uri: str, layout: Layout) -> None:
    """Check from its header that a weights file has the tensors of a layout. Raises WeightsError naming the first difference."""
    if not uri.endswith(".safetensors"):
        raise WeightsError(f"{uri} is not a .safetensors file; convert it first")
    there, wanted = read_header(uri).shapes, state_shapes(layout)
    for name, shape in wanted.items():
        if there.get(name) != shape:
            found = f"has shape {there[name]}" if name in there else "is missing"
            raise WeightsError(f"{uri} does not fit its configuration: {name} {found}, {shape} is needed")
    if extra := sorted(there.keys() - wanted.keys()):
        raise WeightsError(f"{uri} does not fit its configuration: it has {extra[0]}, which the configuration does not")


def load_source(source: ModelSource, path: str) -> LoadedModel:
    """Load a model in fp32 on the CPU, in evaluation mode. Raises WeightsError, OSError or RuntimeError."""
    model = build_clip(source.layout)
    if source.published:
        load_checkpoint(model, path)
    else:
        check_weights(path, source.layout)
        model.load_state_dict(load_state_dict(path))
    return LoadedModel(
        model=model.eval(),
        layout=source.layout,
        tokenizer=make_tokenizer(source.layout),
        image_mean=source.image_mean,
        image_std=source.image_std,
        name=source.name,
        digest=file_digest(path),
    )


def load_student(layout: Layout, weights: bytes, image_mean: Color, image_std: Color) -> LoadedModel:
    """Load a trained model from its layout and the bytes of its safetensors. Raises RuntimeError if the two do not fit."""
    model = build_clip(layout)
    model.load_state_dict(from_safetensors(weights))
    digest = hashlib.sha256(weights).hexdigest()
    return LoadedModel(model.eval(), layout, make_tokenizer(layout), image_mean, image_std, name="student", digest=digest)


def with_normalization(source: ModelSource, preprocess: dict[str, Any] | None) -> ModelSource:
    """Set a source's mean and deviation from an open_clip `preprocess_cfg`; CLIP's own are the default."""
    colors = preprocess or {}
    mean, std = (tuple(float(v) for v in colors.get(k) or d) for k, d in (("mean", OPENAI_MEAN), ("std", OPENAI_STD)))
    return replace(source, image_mean=cast(Color, mean), image_std=cast(Color, std))


def _layout_file(store: ArtifactsStore) -> Layout:
    try:
        return Layout.model_validate(_read_json(store, LAYOUT_FILE))
    except ValueError as error:
        raise WeightsError(f"{store.uri(LAYOUT_FILE)} is not a layout: {error}") from error


def config_layout(config: dict[str, Any], where: str) -> Layout:
    """Return the layout in an `open_clip_config.json`. Raises WeightsError or UnsupportedArchitecture."""
    if "model_cfg" not in config:
        raise WeightsError(f"{where} has no model_cfg; it is not a configuration of open_clip")
    return layout_from_config(config["model_cfg"])


def _read_json(store: ArtifactsStore, name: str) -> dict[str, Any]:
    expect_address(store.uri(name))  # a link may lead elsewhere than the folder
    try:
        document = json.loads(store.read_bytes(name))
    except ValueError as error:
        raise WeightsError(f"{store.uri(name)} is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise WeightsError(f"{store.uri(name)} is not a JSON object")
    return document


def own_towers(loaded: LoadedModel) -> Clip:
    """Return the model in our own towers, whose trace does not depend on values."""
    if isinstance(loaded.model, Clip):
        return loaded.model
    towers = Clip(loaded.layout)
    towers.load_state_dict(loaded.model.state_dict())
    return towers.eval()
