"""Model folders: a registry version, an example's teacher, or any folder in the layout of open_clip or transformers.

A folder without a configuration holds a student whose blocks differ in size, which no library can build: then `layout.json` has
its layout and `preprocess.json` its image preprocessing.

A model that was found (`ModelSource`) and one that was loaded (`LoadedModel`) are separate: a plan reads no weights.
"""

import hashlib
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, cast

from open_clip.factory import load_checkpoint
from pydantic import ValidationError
from safetensors.torch import load as from_safetensors
from tinyclip.artifacts.paths import MODEL_DOCUMENT
from tinyclip.schemas.layouts import AnyLayout, Architecture, Layout

from tinyclip_workers.model.architecture import (
    UnsupportedArchitecture,
    any_layout,
    any_layout_from_config,
    build_clip,
    transformers_architecture,
)
from tinyclip_workers.model.files.folder_files import FILE_SECONDS, read_bytes, read_json
from tinyclip_workers.model.files.headers import WeightsError, shown_name
from tinyclip_workers.model.files.plausible import expect_numbers_of_a_model, expect_plausible, place_of, plausible_layout
from tinyclip_workers.model.files.weights import file_digest, load_state_dict, read_header
from tinyclip_workers.model.layouts import VOCAB_SIZE
from tinyclip_workers.model.preprocessing import (
    INTERPOLATIONS,
    OPENAI_MEAN,
    OPENAI_STD,
    RESIZE_MODES,
    Color,
    Interpolation,
    PixelInput,
    ResizeMode,
)
from tinyclip_workers.model.summary import state_shapes
from tinyclip_workers.model.tokenizers import (
    MAX_TOKENIZER_BYTES,
    SETTINGS_FILE,
    TOKENIZER_FILES,
    VOCABULARY_FILES,
    TokenizerError,
    TokenizerSource,
    make_tokenizer,
    missing_files,
    tokenizer_of_config,
)
from tinyclip_workers.model.tokenizers import Tokenizer as Tokenizer
from tinyclip_workers.model.towers import Clip, Model
from tinyclip_workers.runtime.addresses import address_in
from tinyclip_workers.runtime.filesystems import open_store

CONFIG_FILE = "open_clip_config.json"
LAYOUT_FILE = "layout.json"
PREPROCESS_FILE = "preprocess.json"
"""A file with only the `preprocess_cfg` of an open_clip configuration."""
OWN_WEIGHTS_FILE = "model.safetensors"
COMPACT_FILE = "compact.safetensors"
WEIGHTS_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", OWN_WEIGHTS_FILE, COMPACT_FILE)
"""Names of weights in a folder, in order of preference; the last is our compact form."""
HF_CONFIG_FILE = "config.json"
"""The configuration of a model of transformers, or of the Hugging Face text tower of a model of open_clip."""
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
FOLDER_FILES = (
    *WEIGHTS_FILES, HF_CONFIG_FILE, *PROCESSOR_FILES, CONFIG_FILE, LAYOUT_FILE, PREPROCESS_FILE, MODEL_DOCUMENT,
    *TOKENIZER_FILES, SETTINGS_FILE,
)  # fmt: skip
"""Names that are read in a folder."""
MAX_NAME = 200
POSITION_IDS = ".position_ids"
"""Ends of names of constants that older versions of transformers have stored."""


@dataclass(frozen=True)
class ModelSource:
    """A model that was found but not loaded."""

    name: str
    layout: AnyLayout
    weights: Callable[[], str]
    """Path or URI of the weights; may download them."""
    image_mean: Color = OPENAI_MEAN
    image_std: Color = OPENAI_STD
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    published: bool = False
    """Weights from a hub, in any form that open_clip reads, rather than safetensors of exactly this layout."""
    tokenizer: TokenizerSource | None = None
    """None for CLIP's own."""
    embedding_sizes: tuple[int, ...] = ()
    """Nested sizes that a registry version was trained for, the last of which is all."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, with its tokenizer and image normalization."""

    model: Model
    layout: AnyLayout
    tokenizer: Tokenizer
    image_mean: Color
    image_std: Color
    name: str
    digest: str
    """SHA-256 of the weights file."""
    tokenizer_source: TokenizerSource | None = None
    """Files and settings of the tokenizer; None for CLIP's own."""
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    embedding_sizes: tuple[int, ...] = ()
    """As in `ModelSource`."""

    @property
    def pixels(self) -> PixelInput:
        """The square of pixels that the model reads."""
        return PixelInput(self.layout.image_size, self.interpolation, self.resize_mode)

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
    own = {LAYOUT_FILE, PREPROCESS_FILE} <= names
    if CONFIG_FILE not in names and HF_CONFIG_FILE not in names and not own:
        raise FileNotFoundError(f"{uri} has no {CONFIG_FILE}; a folder in the layout of open_clip or transformers is needed")
    weights = next((name for name in WEIGHTS_FILES if name in names), None)
    if weights is None:
        raise FileNotFoundError(f"{uri} has no weights; put one of {', '.join(WEIGHTS_FILES)} there")
    if CONFIG_FILE not in names and not own:
        return _find_transformers(uri, names, lambda: address_in(uri, weights))
    config = read_json(uri, CONFIG_FILE) if CONFIG_FILE in names else {"preprocess_cfg": read_json(uri, PREPROCESS_FILE)}
    if LAYOUT_FILE in names:
        layout = _layout_file(uri)
    else:
        text_config = read_json(uri, HF_CONFIG_FILE) if HF_CONFIG_FILE in names else None
        layout = config_layout(config, address_in(uri, CONFIG_FILE), text_config)
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    sizes: tuple[int, ...] = ()
    if MODEL_DOCUMENT in names:
        document = read_json(uri, MODEL_DOCUMENT)
        name, sizes = _version_name(document, address_in(uri, MODEL_DOCUMENT)), _nested_sizes(document, layout)
    tokenizer = _folder_tokenizer(uri, names, config.get("model_cfg"))
    source = ModelSource(name, layout, lambda: address_in(uri, weights), tokenizer=tokenizer, embedding_sizes=sizes)
    return with_preprocessing(source, config.get("preprocess_cfg"), uri)


def _find_transformers(uri: str, names: Collection[str], weights: Callable[[], str]) -> ModelSource:
    """Find a model of transformers: its `config.json`, the configuration of its processor, and its tokenizer."""
    where, config = address_in(uri, HF_CONFIG_FILE), read_json(uri, HF_CONFIG_FILE)
    expect_numbers_of_a_model(config, where)
    try:
        layout = transformers_architecture(config)
    except UnsupportedArchitecture as error:
        raise UnsupportedArchitecture(f"{uri} {error}") from error
    expect_plausible(layout)
    files = {name: read_bytes(uri, name, MAX_TOKENIZER_BYTES) for name in TOKENIZER_FILES if name in names}
    tokenizer = TokenizerSource(files, clean=False) if any(name in files for name in VOCABULARY_FILES) else None
    if tokenizer is None and not (layout.family == "CLIP" and layout.vocab_size == VOCAB_SIZE):
        raise WeightsError(missing_files(uri, f"of this {layout.family}"))
    processor = next((name for name in PROCESSOR_FILES if name in names), None)
    source = ModelSource(uri.rstrip("/").rsplit("/", 1)[-1], layout, weights, tokenizer=tokenizer)
    return with_preprocessing(source, processor_settings(read_json(uri, processor) if processor else {}), uri)


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
    files = {name: read_bytes(uri, name, MAX_TOKENIZER_BYTES) for name in known if name in names}
    try:
        return TokenizerSource.from_files(files) or tokenizer_of_config(text_cfg or {}, files, uri)
    except TokenizerError as error:
        raise WeightsError(str(error)) from error


def check_weights(uri: str, layout: AnyLayout) -> None:
    """Check from its header that a weights file has the tensors of a layout. Raises WeightsError naming the first difference."""
    if not uri.endswith(".safetensors"):
        raise WeightsError(f"{uri} is not a .safetensors file; convert it first")
    there, wanted = read_header(uri).shapes, state_shapes(layout)
    for name, shape in wanted.items():
        if there.get(name) != shape:
            found = f"has shape {there[name]}" if name in there else "is missing"
            raise WeightsError(f"{uri} does not fit its configuration: {name} {found}, {shape} is needed")
    if extra := sorted(name for name in there.keys() - wanted.keys() if not name.endswith(POSITION_IDS)):
        raise WeightsError(f"{uri} does not fit its configuration, which has no {shown_name(extra[0])}")


def load_source(source: ModelSource, path: str) -> LoadedModel:
    """Load a model in fp32 on the CPU, in evaluation mode. Raises WeightsError, OSError or RuntimeError."""
    model = build_clip(source.layout)
    if source.published:
        load_checkpoint(model, path)
    else:
        check_weights(path, source.layout)
        state = load_state_dict(path)
        model.load_state_dict({name: tensor for name, tensor in state.items() if not name.endswith(POSITION_IDS)})
    return LoadedModel(
        model=model.eval(),
        layout=source.layout,
        tokenizer=make_tokenizer(source.layout, source.tokenizer),
        image_mean=source.image_mean,
        image_std=source.image_std,
        name=source.name,
        digest=file_digest(path),
        tokenizer_source=source.tokenizer,
        interpolation=source.interpolation,
        resize_mode=source.resize_mode,
        embedding_sizes=source.embedding_sizes,
    )


def load_student(
    layout: AnyLayout, weights: bytes, image_mean: Color, image_std: Color, tokenizer: TokenizerSource | None = None
) -> LoadedModel:
    """Load a trained model from its layout and the bytes of its safetensors. Raises RuntimeError if the two do not fit."""
    model = build_clip(layout)
    model.load_state_dict(from_safetensors(weights))
    digest = hashlib.sha256(weights).hexdigest()
    return LoadedModel(
        model.eval(), layout, make_tokenizer(layout, tokenizer), image_mean, image_std, "student", digest, tokenizer
    )


def processor_settings(document: dict[str, Any]) -> dict[str, Any]:
    """Return the `preprocess_cfg` of open_clip that does what an image processor of transformers does."""
    found = document.get("image_processor")
    settings = found if isinstance(found, dict) else document
    size = settings.get("size")
    square = isinstance(size, dict) and "height" in size
    return {
        "mean": settings.get("image_mean"),
        "std": settings.get("image_std"),
        "interpolation": {2: "bilinear", 3: "bicubic"}.get(settings.get("resample", 3), settings.get("resample")),
        "resize_mode": "squash" if square else "shortest",
    }


def with_preprocessing(source: ModelSource, preprocess: Any, where: str) -> ModelSource:
    """Set a source's preprocessing from an open_clip `preprocess_cfg`; CLIP's own is the default. Raises WeightsError."""
    colors = preprocess or {}
    try:
        mean, std = (tuple(float(v) for v in colors.get(k) or d) for k, d in (("mean", OPENAI_MEAN), ("std", OPENAI_STD)))
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsError(f"{where} has a preprocess_cfg whose mean or std is not a list of numbers; correct it") from error
    if len(mean) != 3 or len(std) != 3 or not all(math.isfinite(value) for value in (*mean, *std)) or not all(std):
        raise WeightsError(f"{where} has a preprocess_cfg whose mean or std is not three finite numbers; correct it")
    interpolation, mode = colors.get("interpolation") or "bicubic", colors.get("resize_mode") or "shortest"
    if interpolation not in INTERPOLATIONS or mode not in RESIZE_MODES:
        known = f"interpolation ({', '.join(INTERPOLATIONS)}) and resize_mode ({', '.join(RESIZE_MODES)})"
        raise WeightsError(f"{where} has a preprocess_cfg with other values than those of {known}; correct it")
    return replace(
        source,
        image_mean=(mean[0], mean[1], mean[2]),
        image_std=(std[0], std[1], std[2]),
        interpolation=cast(Interpolation, interpolation),
        resize_mode=cast(ResizeMode, mode),
    )


def config_layout(config: dict[str, Any], where: str, text_config: dict[str, Any] | None = None) -> AnyLayout:
    """Return the layout in an `open_clip_config.json`; `text_config`: of a Hugging Face text tower.

    Raises WeightsError or UnsupportedArchitecture.
    """
    if not isinstance(config.get("model_cfg"), dict):
        raise WeightsError(f"{where} has no model_cfg; it is not a configuration of open_clip")
    expect_numbers_of_a_model(config["model_cfg"], where)
    if text_config is not None:
        expect_numbers_of_a_model(text_config, where)
    try:
        layout = any_layout_from_config(config["model_cfg"], text_config)
        if isinstance(layout, Layout):
            return plausible_layout(layout)
        expect_plausible(layout)
        return layout
    except (UnsupportedArchitecture, WeightsError):
        raise
    except (ArithmeticError, KeyError, TypeError, ValueError, AttributeError) as error:  # sizes that are missing or no numbers
        raise WeightsError(f"{where} has a model_cfg that cannot be used{place_of(error)}; correct it") from error


def _layout_file(uri: str) -> AnyLayout:
    try:
        layout = any_layout(read_json(uri, LAYOUT_FILE))
        if isinstance(layout, Layout):
            return plausible_layout(layout)
        expect_numbers_of_a_model(layout.config, address_in(uri, LAYOUT_FILE))
        expect_plausible(layout)
        return layout
    except ValidationError as error:
        raise WeightsError(f"{address_in(uri, LAYOUT_FILE)} is not a layout{place_of(error)}; write it again") from error


def _version_name(document: dict[str, Any], where: str) -> str:
    name, version = document.get("name"), document.get("version")
    if not isinstance(name, str) or len(name) > MAX_NAME or not isinstance(version, int):
        raise WeightsError(f"{where} is not a version's document: it needs a name and a version; remove it")
    return f"{name}@{version}"


def _nested_sizes(document: dict[str, Any], layout: AnyLayout) -> tuple[int, ...]:
    """Return the nested sizes in a version's document; none if the folder holds another model."""
    sizes = document.get("embedding_sizes")
    if not isinstance(sizes, list) or not all(isinstance(size, int) and 0 < size <= layout.embed_dim for size in sizes):
        return ()
    return tuple(sizes) if sizes and sizes == sorted(set(sizes)) and sizes[-1] == layout.embed_dim else ()


def towers_to_trace(loaded: LoadedModel) -> Model:
    """Return the model in our own towers, whose trace does not depend on values; that of a library if it has no layout."""
    return loaded.model.eval() if isinstance(loaded.layout, Architecture) else own_towers(loaded)


def own_towers(loaded: LoadedModel) -> Clip:
    """Return the model in our own towers. Raises UnsupportedArchitecture."""
    if isinstance(loaded.model, Clip):
        return loaded.model
    if isinstance(loaded.layout, Architecture):
        raise UnsupportedArchitecture(f"{loaded.name} is a {loaded.layout.family}, whose towers only its library has")
    towers = Clip(loaded.layout)
    towers.load_state_dict(loaded.model.state_dict())
    return towers.eval()
