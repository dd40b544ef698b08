"""Model folders: a registry version, an example's teacher, or any folder in open_clip's layout.

A folder without `open_clip_config.json` holds a student whose blocks differ in size, which open_clip cannot build: then
`layout.json` has its layout and `preprocess.json` its image preprocessing.

A model that was found (`ModelSource`) and one that was loaded (`LoadedModel`) are separate: a plan reads no weights.
"""

import hashlib
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from open_clip.factory import load_checkpoint
from pydantic import ValidationError
from safetensors.torch import load as from_safetensors
from tinyclip.artifacts.paths import MODEL_DOCUMENT
from tinyclip.schemas.layouts import Layout

from tinyclip_workers.model.architecture import UnsupportedArchitecture, build_clip, layout_from_config, state_shapes
from tinyclip_workers.model.documents import parse_object
from tinyclip_workers.model.headers import WeightsError, shown_name
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD, Color
from tinyclip_workers.model.tokenizers import (
    MAX_TOKENIZER_BYTES,
    SETTINGS_FILE,
    TOKENIZER_FILES,
    TokenizerError,
    TokenizerSource,
    make_tokenizer,
    tokenizer_of_config,
)
from tinyclip_workers.model.tokenizers import Tokenizer as Tokenizer
from tinyclip_workers.model.towers import Clip, Model
from tinyclip_workers.model.weights import file_digest, load_state_dict, read_header
from tinyclip_workers.runtime.addresses import ServiceAddress, address_in
from tinyclip_workers.runtime.filesystems import open_store
from tinyclip_workers.runtime.user_files import SMALL_FILE_SECONDS, open_file

CONFIG_FILE = "open_clip_config.json"
LAYOUT_FILE = "layout.json"
PREPROCESS_FILE = "preprocess.json"
"""A file with only the `preprocess_cfg` of an open_clip configuration."""
OWN_WEIGHTS_FILE = "model.safetensors"
COMPACT_FILE = "compact.safetensors"
WEIGHTS_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", OWN_WEIGHTS_FILE, COMPACT_FILE)
"""Names of weights in a folder, in order of preference; the last is our compact form."""
FOLDER_FILES = (*WEIGHTS_FILES, CONFIG_FILE, LAYOUT_FILE, PREPROCESS_FILE, MODEL_DOCUMENT, *TOKENIZER_FILES, SETTINGS_FILE)
"""Names that are read in a folder."""
FILE_SECONDS = 60.0
"""Time limit for each file beside the weights, in a remote store."""

MAX_DOCUMENT_BYTES = 32 << 20
"""Limit of a configuration, a layout or a version's document. The last has the shards that the version was trained on."""
MAX_USER_DOCUMENT_BYTES = 4 << 20
"""The same for a folder that a user names: a parsed document takes up to 25 times its size."""
MAX_BLOCKS, MAX_SIDE, MAX_WIDTH, MAX_VOCABULARY = 200, 8192, 1 << 17, 10_000_000
"""Limits of the sizes in a layout: several times those of the largest published models."""
MAX_NAME = 200


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
    tokenizer: TokenizerSource | None = None
    """None for CLIP's own."""


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
    tokenizer_source: TokenizerSource | None = None
    """Files and settings of the tokenizer; None for CLIP's own."""

    @property
    def tokenizer_files(self) -> dict[str, bytes]:
        """Files to store with a student; none for CLIP's tokenizer."""
        return self.tokenizer_source.to_files() if self.tokenizer_source is not None else {}


def find_folder(uri: str) -> ModelSource:
    """Find a model folder at a path or fsspec URI; its layout is in `layout.json`, if that exists.

    Raises FileNotFoundError, WeightsError or UnsupportedArchitecture, naming the file.
    """
    store = open_store(uri, limit_s=FILE_SECONDS)
    names = {name for name in FOLDER_FILES if store.exists(name)}  # not a listing: a folder may have millions of files
    if not names and not store.exists(""):
        raise FileNotFoundError(f"there is no model folder at {uri}; check the path")
    if CONFIG_FILE not in names and not {LAYOUT_FILE, PREPROCESS_FILE} <= names:
        raise FileNotFoundError(f"{uri} has no {CONFIG_FILE}; a folder in open_clip's layout is needed")
    weights = next((name for name in WEIGHTS_FILES if name in names), None)
    if weights is None:
        raise FileNotFoundError(f"{uri} has no weights; put one of {', '.join(WEIGHTS_FILES)} there")
    config = _read_json(uri, CONFIG_FILE) if CONFIG_FILE in names else {"preprocess_cfg": _read_json(uri, PREPROCESS_FILE)}
    layout = _layout_file(uri) if LAYOUT_FILE in names else config_layout(config, address_in(uri, CONFIG_FILE))
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    if MODEL_DOCUMENT in names:
        name = _version_name(_read_json(uri, MODEL_DOCUMENT), address_in(uri, MODEL_DOCUMENT))
    tokenizer = _folder_tokenizer(uri, names, config.get("model_cfg"))
    source = ModelSource(name, layout, lambda: address_in(uri, weights), tokenizer=tokenizer)
    return with_normalization(source, config.get("preprocess_cfg"), uri)


def load_folder(uri: str) -> LoadedModel:
    """Load a model folder. Raises as `find_folder` does, and WeightsError if weights and layout do not fit."""
    source = find_folder(uri)
    return load_source(source, source.weights())


def _folder_tokenizer(uri: str, names: Collection[str], model_cfg: Any) -> TokenizerSource | None:
    """Return the tokenizer of a folder; None for CLIP's own. Raises WeightsError, naming the files that are missing."""
    text_cfg = model_cfg.get("text_cfg") if isinstance(model_cfg, dict) else None
    named = isinstance(text_cfg, dict) and text_cfg.get("hf_tokenizer_name")
    if not named and SETTINGS_FILE not in names:
        return None
    known = (*TOKENIZER_FILES, SETTINGS_FILE)
    files = {name: _read_bytes(uri, name, MAX_TOKENIZER_BYTES) for name in known if name in names}
    try:
        return TokenizerSource.from_files(files) or tokenizer_of_config(text_cfg or {}, files, uri)
    except TokenizerError as error:
        raise WeightsError(str(error)) from error


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
        raise WeightsError(f"{uri} does not fit its configuration, which has no {shown_name(extra[0])}")


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
        tokenizer=make_tokenizer(source.layout, source.tokenizer),
        image_mean=source.image_mean,
        image_std=source.image_std,
        name=source.name,
        digest=file_digest(path),
        tokenizer_source=source.tokenizer,
    )


def load_student(
    layout: Layout, weights: bytes, image_mean: Color, image_std: Color, tokenizer: TokenizerSource | None = None
) -> LoadedModel:
    """Load a trained model from its layout and the bytes of its safetensors. Raises RuntimeError if the two do not fit."""
    model = build_clip(layout)
    model.load_state_dict(from_safetensors(weights))
    digest = hashlib.sha256(weights).hexdigest()
    return LoadedModel(
        model.eval(), layout, make_tokenizer(layout, tokenizer), image_mean, image_std, "student", digest, tokenizer
    )


def with_normalization(source: ModelSource, preprocess: Any, where: str) -> ModelSource:
    """Set a source's mean and deviation from an open_clip `preprocess_cfg`; CLIP's own are the default. Raises WeightsError."""
    colors = preprocess or {}
    try:
        mean, std = (tuple(float(v) for v in colors.get(k) or d) for k, d in (("mean", OPENAI_MEAN), ("std", OPENAI_STD)))
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsError(f"{where} has a preprocess_cfg whose mean or std is not a list of numbers; correct it") from error
    if len(mean) != 3 or len(std) != 3 or not all(math.isfinite(value) for value in (*mean, *std)) or not all(std):
        raise WeightsError(f"{where} has a preprocess_cfg whose mean or std is not three finite numbers; correct it")
    return replace(source, image_mean=(mean[0], mean[1], mean[2]), image_std=(std[0], std[1], std[2]))


def config_layout(config: dict[str, Any], where: str) -> Layout:
    """Return the layout in an `open_clip_config.json`. Raises WeightsError or UnsupportedArchitecture."""
    if not isinstance(config.get("model_cfg"), dict):
        raise WeightsError(f"{where} has no model_cfg; it is not a configuration of open_clip")
    _expect_numbers_of_a_model(config["model_cfg"], where)
    try:
        return plausible_layout(layout_from_config(config["model_cfg"]))
    except (UnsupportedArchitecture, WeightsError):
        raise
    except (ArithmeticError, KeyError, TypeError, ValueError, AttributeError) as error:  # sizes that are missing or no numbers
        raise WeightsError(f"{where} has a model_cfg that cannot be used{place_of(error)}; correct it") from error


def _layout_file(uri: str) -> Layout:
    try:
        return plausible_layout(Layout.model_validate(_read_json(uri, LAYOUT_FILE)))
    except ValidationError as error:
        raise WeightsError(f"{address_in(uri, LAYOUT_FILE)} is not a layout{place_of(error)}; write it again") from error


def plausible_layout(layout: Layout) -> Layout:
    """Return a layout that a user's file has, if its sizes are those of a model. Raises WeightsError.

    Shapes and parameters are computed from it, block by block.
    """
    image, text = layout.image, layout.text
    _expect_sizes([*image.layers, text.layers, len(image.heads or []), len(text.heads)], "blocks of a tower", MAX_BLOCKS, least=0)
    _expect_sizes([image.image_size, image.patch_size or 1, text.context_length], "image_size, patch_size and context", MAX_SIDE)
    _expect_sizes([layout.embed_dim, image.width, image.head_width, text.width, text.head_width], "widths", MAX_WIDTH)
    _expect_sizes([text.vocab_size], "vocab_size", MAX_VOCABULARY)
    _expect_sizes([*(image.heads or []), *(image.mlp or []), *text.heads, *text.mlp], "heads and mlp", MAX_WIDTH, least=0)
    fits = len(text.heads) == len(text.mlp) == text.layers and len(image.layers) == {"vit": 1, "resnet": 4}[image.kind]
    if image.kind == "vit":
        fits = fits and image.patch_size is not None and len(image.heads or []) == len(image.mlp or []) == image.layers[0]
    if not fits:
        raise WeightsError("a layout has one number of heads and one of MLP units for each block; this one has others")
    return layout


def _expect_sizes(sizes: Iterable[int], what: str, most: int, *, least: int = 1) -> None:
    if not all(least <= size <= most for size in sizes):
        raise WeightsError(f"{what} of a model must be {least} to {most:,}; this one has others")


def _expect_numbers_of_a_model(config: dict[str, Any], where: str) -> None:
    """Refuse numbers from which no layout is made: lists become as long as they say. Raises WeightsError."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        values = [number for value in part.values() for number in (value if isinstance(value, list) else [value])]
        layers = part.get("layers")
        counts = [count for count in (layers if isinstance(layers, list) else [layers]) if isinstance(count, int | float)]
        large = any(isinstance(number, int | float) and not abs(number) <= MAX_VOCABULARY for number in values)
        if large or len(values) > MAX_BLOCKS or not all(0 <= count <= MAX_BLOCKS for count in counts):
            message = f"has numbers beyond those of a model: up to {MAX_BLOCKS} layers and {MAX_VOCABULARY:,} tokens"
            raise WeightsError(f"{where} {message}")


def _version_name(document: dict[str, Any], where: str) -> str:
    name, version = document.get("name"), document.get("version")
    if not isinstance(name, str) or len(name) > MAX_NAME or not isinstance(version, int):
        raise WeightsError(f"{where} is not a version's document: it needs a name and a version; remove it")
    return f"{name}@{version}"


def place_of(error: Exception) -> str:
    """Return the field of an error in a document, for messages, which do not repeat values of the document."""
    if not isinstance(error, ValidationError):
        return ""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f" at {'.'.join(shown_name(str(part)) for part in first['loc'])}" if first["loc"] else ""


def _read_json(folder: str, name: str) -> dict[str, Any]:
    address = address_in(folder, name)
    data = _read_bytes(folder, name, MAX_DOCUMENT_BYTES if isinstance(address, ServiceAddress) else MAX_USER_DOCUMENT_BYTES)
    return parse_object(data, lambda what: WeightsError(f"{address} is {what}; write it again"))


def _read_bytes(folder: str, name: str, limit: int) -> bytes:
    address = address_in(folder, name)
    with open_file(address, block_bytes=1 << 20, seconds=SMALL_FILE_SECONDS) as file:  # checked: a link may lead elsewhere
        data = file.read(limit + 1)
    if len(data) > limit:
        raise WeightsError(f"{address} has more than {limit:,} bytes; it is not the file of a model")
    return data


def own_towers(loaded: LoadedModel) -> Clip:
    """Return the model in our own towers, whose trace does not depend on values."""
    if isinstance(loaded.model, Clip):
        return loaded.model
    towers = Clip(loaded.layout)
    towers.load_state_dict(loaded.model.state_dict())
    return towers.eval()
