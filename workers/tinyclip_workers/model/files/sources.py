"""The teacher that a spec names: a folder, a model of a hub, or an open_clip architecture with weights."""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import open_clip
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from open_clip.pretrained import (
    HF_SAFE_WEIGHTS_NAME,
    HF_WEIGHTS_NAME,
    download_pretrained,
    download_pretrained_from_hf,
    get_pretrained_cfg,
    list_pretrained_tags_by_model,
)
from tinyclip.addresses import ARTIFACTS_ROOT
from tinyclip.artifacts.paths import model_version
from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import TeacherSpec

from tinyclip_workers.model.architecture import UnsupportedArchitecture, any_layout_from_config
from tinyclip_workers.model.documents import parse_object
from tinyclip_workers.model.files.errors import HubError, TeacherError
from tinyclip_workers.model.files.folder_files import MAX_USER_DOCUMENT_BYTES, read_if_exists, tokenizer_files
from tinyclip_workers.model.files.folders import (
    CONFIG_FILE,
    HF_CONFIG_FILE,
    LoadedModel,
    ModelSource,
    check_weights,
    config_layout,
    find_folder,
    load_source,
    with_preprocessing,
)
from tinyclip_workers.model.files.headers import WeightsError
from tinyclip_workers.model.layouts import VOCAB_SIZE
from tinyclip_workers.model.tokenizers import (
    MAX_TOKENIZER_BYTES,
    TOKENIZER_FILES,
    TokenizerError,
    TokenizerSource,
    missing_files,
    tokenizer_of_config,
)
from tinyclip_workers.runtime.addresses import ServiceAddress

Found = TypeVar("Found")

PARENT = "/stages/0/inherit_from"
TIMEOUT_S = 10.0
MAX_HUB_WEIGHTS_BYTES = 16 << 30
"""Limit of the weights of a hub's model: the largest plain CLIP, ViT-bigG, has 10 GB in fp32."""
HUB_WEIGHTS_FILES = (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
LOCAL_DIR, HF_HUB, REGISTRY = "local-dir:", "hf-hub:", "registry:"
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_TOKENIZER = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_PINNED = re.compile(r"([a-z0-9][a-z0-9._-]{0,62})@([0-9]{1,9})", re.ASCII)
"""A registered version as the server names it, after it has checked that the model is one of the caller's project."""


def of_parent(spec: JobSpec, read: Callable[[TeacherSpec], Found]) -> Found | None:
    """Call a function of this module with the model of `inherit_from`; None without one. Raises TeacherError."""
    if spec.inherits_from is None:
        return None
    try:
        return read(TeacherSpec(model=spec.inherits_from))
    except TeacherError as error:
        raise TeacherError(PARENT, spec.inherits_from, error.message) from error


def load_teacher(spec: TeacherSpec, at: str = "/teacher") -> LoadedModel:
    """Load the teacher in fp32 on the CPU, in evaluation mode; `at` is its place in the spec. Raises TeacherError."""
    source = find_teacher(spec, at)
    try:
        path = source.weights()
    except HubError as error:
        raise TeacherError(f"{at}/model", spec.model, str(error)) from error
    pointer = f"{at}/pretrained" if spec.pretrained else f"{at}/model"
    try:
        return load_source(source, path)
    except (WeightsError, OSError, RuntimeError) as error:
        raise TeacherError(pointer, spec.pretrained or spec.model, str(error)) from error


def check_teacher(spec: TeacherSpec, at: str = "/teacher") -> ModelSource:
    """Find the teacher, read its configuration, and check that its weights exist and have the right shapes.

    Weights are not read; those of a hub are not downloaded. Raises TeacherError.
    """
    source = find_teacher(spec, at)
    pointer, value = (f"{at}/pretrained", spec.pretrained) if spec.pretrained else (f"{at}/model", spec.model)
    try:
        tag = get_pretrained_cfg(spec.model.replace("/", "-"), spec.pretrained) if spec.pretrained else None
        if tag:
            check_pretrained(tag, f"{spec.model} {spec.pretrained}")
        elif spec.model.startswith(HF_HUB):
            _require_weights(spec.model.removeprefix(HF_HUB))
        else:
            check_weights(source.weights(), source.layout)
    except (OSError, HubError, ValueError) as error:  # WeightsError, or an address without a driver
        raise TeacherError(pointer, value, str(error)) from error
    if source.tokenizer is None and source.layout.vocab_size < VOCAB_SIZE:
        message = f"has {source.layout.vocab_size} token embeddings and no tokenizer of its own; CLIP's has {VOCAB_SIZE} tokens"
        raise TeacherError(pointer, value, f"{message}: put tokenizer.json and tokenizer_config.json into its folder")
    return source


def find_teacher(spec: TeacherSpec, at: str = "/teacher") -> ModelSource:
    """Find the teacher's name, layout and the place of its weights. Raises TeacherError."""
    try:
        if spec.model.startswith((LOCAL_DIR, HF_HUB, REGISTRY)) and spec.pretrained is not None:
            raise TeacherError(f"{at}/pretrained", spec.pretrained, f"{spec.model} brings its own weights; remove pretrained")
        if spec.model.startswith(LOCAL_DIR):
            return find_folder(spec.model.removeprefix(LOCAL_DIR))
        if spec.model.startswith(HF_HUB):
            return _find_on_hub(spec.model.removeprefix(HF_HUB))
        if spec.model.startswith(REGISTRY):
            return find_folder(_registered(spec.model, at))
        return _find_open_clip(spec, at)
    except TeacherError:
        raise
    except (UnsupportedArchitecture, HubError, OSError, ValueError) as error:  # WeightsError, or an address without a driver
        raise TeacherError(f"{at}/model", spec.model, str(error)) from error


def _registered(model: str, at: str) -> ServiceAddress:
    """Return the folder of a pinned version in the artifacts store. Raises TeacherError."""
    pinned, root = _PINNED.fullmatch(model.removeprefix(REGISTRY)), os.environ.get(ARTIFACTS_ROOT)
    if pinned is None or not root:
        raise TeacherError(f"{at}/model", model, "only the server knows its registry; submit the spec to it")
    return ServiceAddress(f"{root}/{model_version(pinned[1], int(pinned[2]))}")


def _find_open_clip(spec: TeacherSpec, at: str) -> ModelSource:
    name = spec.model.replace("/", "-")
    config = open_clip.get_model_config(name)
    if config is None:
        raise TeacherError(
            f"{at}/model",
            spec.model,
            f"is no open_clip architecture; {_did_you_mean(name, open_clip.list_models())}"
            "else use hf-hub:ORG/NAME, local-dir:PATH or registry:NAME@VERSION",
        )
    tags = list_pretrained_tags_by_model(name)
    weights = spec.pretrained
    if weights is None:
        message = f"is missing: without weights {name} is random; give one of {', '.join(tags)}"
        raise TeacherError(f"{at}/pretrained", None, message)
    tag = get_pretrained_cfg(name, weights)
    if not tag and "/" not in weights and "." not in weights:
        hint = _did_you_mean(weights, tags)
        raise TeacherError(f"{at}/pretrained", weights, f"{name} has no such weights; {hint}known: {', '.join(tags)}")
    if tag.get("quick_gelu"):  # weights trained with it need it, whatever the architecture's default
        config["quick_gelu"] = True
    folder = None if tag else weights.rpartition("/")[0] or "."
    text_config = read_if_exists(folder, HF_CONFIG_FILE) if folder and config["text_cfg"].get("hf_model_name") else None
    layout = any_layout_from_config(config, text_config)
    full_name = f"{name}@{weights.rsplit('/', 1)[-1]}"
    tokenizer = _tokenizer(config["text_cfg"], folder)
    if not tag:
        return ModelSource(full_name, layout, lambda: weights, tokenizer=tokenizer)
    source = ModelSource(full_name, layout, lambda: fetch_pretrained(tag, full_name), published=True, tokenizer=tokenizer)
    return with_preprocessing(source, tag, full_name)


def _find_on_hub(repository: str) -> ModelSource:
    config = fetch_config(repository)
    layout = config_layout(config, f"hf-hub:{repository}")
    tokenizer = _tokenizer({**config["model_cfg"]["text_cfg"]}, None, repository)
    source = ModelSource(repository, layout, lambda: fetch_weights(repository), published=True, tokenizer=tokenizer)
    return with_preprocessing(source, config.get("preprocess_cfg"), f"hf-hub:{repository}")


def _tokenizer(text_cfg: Mapping[str, Any], folder: str | None, repository: str | None = None) -> TokenizerSource | None:
    """Return the tokenizer that a configuration names, from a folder or from the hub. Raises WeightsError, HubError."""
    name = text_cfg.get("hf_tokenizer_name")
    if not name:
        return None
    files = tokenizer_files(folder) if folder else {}
    try:
        return tokenizer_of_config(text_cfg, files or fetch_tokenizer(str(name)), folder or repository or str(name))
    except TokenizerError as error:
        raise WeightsError(str(error)) from error


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(close)}? " if close else ""


def fetch_config(repository: str) -> dict[str, Any]:
    """Read the `open_clip_config.json` of a repository `ORG/NAME` from the local cache or the hub."""
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise HubError(f"hf-hub:{repository} is not a repository; write hf-hub:ORG/NAME")
    _require_file(repository, CONFIG_FILE, limit=MAX_USER_DOCUMENT_BYTES)
    path = _downloaded(f"hf-hub:{repository}", lambda: download_pretrained_from_hf(repository, filename=CONFIG_FILE))
    address = f"the {CONFIG_FILE} of hf-hub:{repository}"
    with open(path, "rb") as file:
        data = file.read(MAX_USER_DOCUMENT_BYTES + 1)
    if len(data) > MAX_USER_DOCUMENT_BYTES:
        raise WeightsError(f"{address} has more than {MAX_USER_DOCUMENT_BYTES:,} bytes; use another model")
    return parse_object(data, lambda what: WeightsError(f"{address} is {what}; use another model"))


def fetch_tokenizer(repository: str) -> dict[str, bytes]:
    """Return the tokenizer's files of a repository `ORG/NAME`, from the local cache or the hub, by name. Raises HubError."""
    if not _TOKENIZER.fullmatch(repository) or ".." in repository:
        raise HubError(f"the tokenizer {repository[:100]} is not a repository of the hub; correct hf_tokenizer_name")
    found: dict[str, bytes] = {}
    for file in TOKENIZER_FILES:
        cached = try_to_load_from_cache(repository, file)
        path = cached if isinstance(cached, str) else None
        if path is None and not found and cached is None:
            path = _downloaded_file(repository, file)
        if path is not None:
            with open(path, "rb") as opened:
                found[file] = opened.read(MAX_TOKENIZER_BYTES)
    return found


def _downloaded_file(repository: str, file: str) -> str | None:
    """Download a small file; None if the repository has none of this name. Raises HubError naming what to put where."""
    try:
        path: str = hf_hub_download(repository, file, etag_timeout=TIMEOUT_S)
        return path
    except EntryNotFoundError:
        return None
    except Exception as error:  # connection errors of several libraries, 401, 404, offline mode
        raise HubError(f"{missing_files(repository, repository)}; {_unreachable(repository, error)}") from error


def fetch_weights(repository: str) -> str:
    """Return the local path of a repository's weights, downloading them if not in the cache. Raises HubError.

    Weights of more than MAX_HUB_WEIGHTS_BYTES are not downloaded.
    """
    _require_weights(repository)
    return _downloaded(f"hf-hub:{repository}", lambda: download_pretrained_from_hf(repository))


def fetch_pretrained(tag: dict[str, Any], name: str) -> str:
    """Return the local path of the weights of an open_clip tag, downloading them if not in the cache. Raises HubError."""
    return _downloaded(name, lambda: download_pretrained(tag))


def _downloaded(name: str, download: Callable[[], object]) -> ServiceAddress:
    """Return the place in the cache of what is downloaded, which no user has chosen."""
    try:
        return ServiceAddress(download())
    except Exception as error:  # open_clip and its hub client raise anything here
        raise _unreachable(name, error) from error


def check_pretrained(tag: dict[str, Any], name: str) -> None:
    """Raise HubError if the weights of an open_clip tag are neither in the cache nor on the hub."""
    repository, _, file = str(tag.get("hf_hub", "")).rpartition("/")
    if repository:
        _require_file(repository, file or "open_clip_pytorch_model.bin", name)


def _require_weights(repository: str) -> None:
    """Raise HubError if the hub has no weights of a repository, or too large ones; those in the cache do while it is away."""
    missing: list[HubError] = []
    for file in HUB_WEIGHTS_FILES:  # open_clip downloads the second one if it fails to download the first one
        try:
            _require_file(repository, file, limit=MAX_HUB_WEIGHTS_BYTES)
        except _TooLarge:
            raise
        except HubError as error:
            missing.append(error)
    if len(missing) == len(HUB_WEIGHTS_FILES):
        raise missing[-1]


class _TooLarge(HubError):
    """A file beyond its limit."""


def _require_file(repository: str, file: str, name: str | None = None, *, limit: int | None = None) -> None:
    """Raise HubError if a file is neither in the cache nor on the hub, or if the one that would be downloaded is too large."""
    safe = file.rsplit(".", 1)[0] + ".safetensors"
    cached = any(isinstance(try_to_load_from_cache(repository, known), str) for known in (file, safe, HF_SAFE_WEIGHTS_NAME))
    if cached and limit is None:
        return
    try:
        metadata = get_hf_file_metadata(hf_hub_url(repository, file), timeout=TIMEOUT_S)
    except Exception as error:  # connection errors of several libraries, 401, 404, offline mode
        if cached:
            return
        raise _unreachable(name or f"hf-hub:{repository}", error) from error
    if limit is not None and (metadata.size is None or metadata.size > limit):
        found = "no size" if metadata.size is None else f"{metadata.size:,} bytes"
        raise _TooLarge(f"{file} of hf-hub:{repository} has {found}, at most {limit:,} bytes are downloaded; use another model")


def _unreachable(name: str, error: Exception) -> HubError:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return HubError(
        f"{name} is not in the local cache and the hub does not provide it ({first_line}); "
        "check the name, log in or download it on a machine with access and use local-dir:PATH"
    )
