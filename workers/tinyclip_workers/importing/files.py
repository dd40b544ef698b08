"""A model made elsewhere, from its file or directory to a state dict: tensors are read, nothing in a file is run.

Pickles go through torch's `weights_only` reader, which knows tensors and plain containers alone.
"""

import json
import pickle
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyclip_workers.model.folders import CONFIG_FILE, LAYOUT_FILE, PREPROCESS_FILE, WEIGHTS_FILES
from tinyclip_workers.model.weights import WeightsError, file_digest, load_state_dict
from tinyclip_workers.runtime.addresses import expect_address
from tinyclip_workers.runtime.filesystems import open_filesystem

FOLDER_WEIGHTS = (*WEIGHTS_FILES, "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pt", "pytorch_model.bin")
"""Names of weights in a directory, in the order in which they are looked for."""
FOLDER_CONFIGS = (CONFIG_FILE, LAYOUT_FILE, PREPROCESS_FILE)
WRAPPERS = ("state_dict", "model", "model_state_dict")
"""What training programs call the state dict inside their checkpoints."""
SCHEMES = ("file", "s3", "gs", "gcs", "az", "abfs", "memory")
"""Stores that are read on a user's word; http(s) is not among them: the server asks no address for a user."""
ZIP, PICKLE = b"PK\x03\x04", b"\x80"


class ImportRefused(ValueError):
    """A file that cannot be imported: the field that says so, what was there, and the way out."""

    def __init__(self, pointer: str, value: object, message: str) -> None:
        super().__init__(f"{pointer}: {message}")
        self.pointer, self.value, self.message = pointer, value, message


Refuse = Callable[[str], ImportRefused]


@dataclass
class SourceFile:
    """What was found, not yet understood."""

    file: str
    """Name of the weights file."""
    sha256: str
    bytes: int
    state: dict[str, Tensor]
    wrapper: str | None = None
    """Under which key the state dict lay in its checkpoint."""
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The JSON documents of a directory, by name."""


def read_source(source: str, scratch: Path, *, called: str | None, limit: int, pointer: str) -> SourceFile:
    """A file, directory or uploaded tar (`called` *.tar) at a path or URI. `scratch` takes what has to be unpacked or fetched.

    Raises ImportRefused, at `pointer`.
    """

    def refuse(message: str) -> ImportRefused:
        return ImportRefused(pointer, (called or source).removesuffix(".tar"), message)

    try:
        if called is not None and called.endswith(".tar"):
            folder = _unpack(Path(source), scratch / "unpacked", refuse)
            return _read_folder(folder, refuse)
        path = _fetch(source, scratch / "fetched", limit, refuse)
        return _read_folder(path, refuse) if path.is_dir() else _read_file(path, called or path.name, refuse)
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror or error}; check the path and who may read it") from error


def _fetch(source: str, target: Path, limit: int, refuse: Refuse) -> Path:
    """The local path of a source; a copy where it lies in a store elsewhere."""
    scheme, separator, _ = source.partition("://")
    if not separator:
        if not source.startswith("/"):
            raise refuse("is a relative path, which means nothing on the server; give an absolute path or a URI, or upload it")
        return _present(Path(source), limit, refuse)
    if scheme not in SCHEMES:
        raise refuse(f"is of the scheme {scheme}, which is not read; upload the file, or use one of {', '.join(SCHEMES)}")
    if scheme == "file":
        return _present(Path(source.removeprefix("file://")), limit, refuse)
    try:
        return _fetch_from_store(source, target, limit, refuse)
    except (ImportRefused, OSError):
        raise
    except Exception as error:  # a store's library may be missing, and raises anything where keys or names are wrong
        raise refuse(f"cannot be read ({_first_line(error)}); check the URI and the server's access to that store") from error


def _fetch_from_store(source: str, target: Path, limit: int, refuse: Refuse) -> Path:
    fs, path = open_filesystem(source)
    if not fs.exists(path):
        raise refuse("is not there; check the URI")
    target.mkdir(parents=True)
    if not fs.isdir(path):
        copy = target / str(path).rsplit("/", 1)[-1]
        _copy(fs, path, copy, limit, refuse)
        return copy
    there = {str(name).rstrip("/").rsplit("/", 1)[-1] for name in fs.ls(path, detail=False)}
    weights = [name for name in FOLDER_WEIGHTS if name in there][:1]
    for name in [*weights, *(name for name in FOLDER_CONFIGS if name in there)]:
        _copy(fs, f"{path}/{name}", target / name, limit, refuse)
    return target


def _present(path: Path, limit: int, refuse: Refuse) -> Path:
    if not path.exists():
        raise refuse("is not there; check the path, or upload the file")
    for each in (path, *(path / name for name in (*FOLDER_WEIGHTS, *FOLDER_CONFIGS))):
        if each.exists():
            expect_address(str(each))
    if path.is_file() and path.stat().st_size > limit:
        raise refuse(f"has {path.stat().st_size:,} bytes, at most {limit:,} are read; raise TINYCLIP_MAX_IMPORT_BYTES")
    return path


def _copy(fs: Any, path: str, target: Path, limit: int, refuse: Refuse) -> None:
    if fs.size(path) > limit:
        raise refuse(f"has {fs.size(path):,} bytes, at most {limit:,} are read; raise TINYCLIP_MAX_IMPORT_BYTES")
    fs.get_file(path, str(target))


def _unpack(path: Path, target: Path, refuse: Refuse) -> Path:
    """The known files of an uploaded tar; anything but a plain file of a known name is refused."""
    target.mkdir(parents=True)
    known = {*FOLDER_WEIGHTS, *FOLDER_CONFIGS}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isreg() or member.name not in known:
                    raise refuse(f"holds {member.name!r}; only these plain files are read: {', '.join(sorted(known))}")
                content = tar.extractfile(member)
                assert content is not None
                with open(target / member.name, "wb") as file:
                    shutil.copyfileobj(content, file)
    except tarfile.TarError as error:
        raise refuse(f"is not a whole tar ({error}); upload it again") from error
    return target


def _read_folder(folder: Path, refuse: Refuse) -> SourceFile:
    names = sorted(path.name for path in folder.iterdir())
    weights = next((name for name in FOLDER_WEIGHTS if name in names), None)
    if weights is None:
        raise refuse(f"has no weights; one of {', '.join(FOLDER_WEIGHTS)} is needed, it has {', '.join(names) or 'nothing'}")
    found = _read_file(folder / weights, weights, refuse)
    for name in FOLDER_CONFIGS:
        if name in names:
            found.configs[name] = _read_config(folder / name, refuse)
    return found


def _read_config(path: Path, refuse: Refuse) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise refuse(f"has a {path.name} that is not JSON ({error}); save it again") from error
    if not isinstance(document, dict):
        raise refuse(f"has a {path.name} that is not a JSON object; save it again")
    return document


def _read_file(path: Path, called: str, refuse: Refuse) -> SourceFile:
    with open(path, "rb") as file:
        start = file.read(4)
    if start == ZIP or start[:1] == PICKLE:
        wrapper, state = _unwrapped(_unpickle(path, refuse), refuse)
    else:
        wrapper, state = None, _read_safetensors(path, refuse)
    return SourceFile(called, file_digest(str(path)), path.stat().st_size, state, wrapper)


def _read_safetensors(path: Path, refuse: Refuse) -> dict[str, Tensor]:
    try:
        return load_state_dict(str(path))
    except WeightsError as error:
        reason = str(error).replace(str(path), "this")
        raise refuse(f"is neither a safetensors file nor one that torch.save wrote: {reason}") from error


def _unpickle(path: Path, refuse: Refuse) -> object:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise refuse("is a compressed archive, not a file of torch.save; upload the file in it")
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise refuse("is a TorchScript program, which would be run; save its weights: torch.save(model.state_dict(), FILE)")
    try:
        found: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise refuse(_unsafe(str(error))) from error
    except Exception as error:  # bytes that are no checkpoint can make the reader raise anything
        raise refuse(f"is not a whole file of torch.save ({_first_line(error)}); copy or download it again") from error
    return found


def _unsafe(reason: str) -> str:
    asked = re.search(r"GLOBAL ([\w.]+)", reason)
    what = f"it asks for {asked[1]}" if asked else "it does not hold plain tensors"
    return (
        f"was not opened: {what}, and a file that needs more than tensors and plain containers can run any program; "
        "save the weights alone: torch.save(model.state_dict(), FILE)"
    )


def _unwrapped(found: object, refuse: Refuse) -> tuple[str | None, dict[str, Tensor]]:
    wrapper: list[str] = []
    while isinstance(found, Mapping) and not any(isinstance(value, Tensor) for value in found.values()):
        key = next((name for name in WRAPPERS if isinstance(found.get(name), Mapping)), None)
        if key is None:
            break
        wrapper.append(key)
        found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise refuse(f"holds no state dict; one is needed, bare or under {' or '.join(WRAPPERS)}")
    state = {str(name): value for name, value in found.items()}
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.is_quantized or value.layout != torch.strided:
            raise refuse(f"has {name} = {type(value).__name__} among its weights; only plain tensors are read")
    return ".".join(wrapper) or None, state


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
