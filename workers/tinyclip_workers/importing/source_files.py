"""Read a state dict from a file, directory or uploaded tar without executing anything in it.

Pickles are read with torch's `weights_only`, which accepts only tensors and plain containers.
"""

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

from tinyclip_workers.model.documents import parse_object
from tinyclip_workers.model.folders import (
    CONFIG_FILE,
    LAYOUT_FILE,
    MAX_DOCUMENT_BYTES,
    MAX_SHOWN_FILES,
    PREPROCESS_FILE,
    WEIGHTS_FILES,
)
from tinyclip_workers.model.headers import MAX_SHOWN_NAME, WeightsError, shown_name
from tinyclip_workers.model.weights import file_digest, load_state_dict
from tinyclip_workers.runtime.addresses import ServiceAddress, expect_address
from tinyclip_workers.runtime.filesystems import open_filesystem
from tinyclip_workers.runtime.memory import is_out_of_memory

FOLDER_WEIGHTS = (*WEIGHTS_FILES, "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pt", "pytorch_model.bin")
"""File names of weights in a directory, in order of preference."""
FOLDER_CONFIGS = (CONFIG_FILE, LAYOUT_FILE, PREPROCESS_FILE)
WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training programs keep the state dict in a checkpoint."""
SCHEMES = ("file", "s3", "gs", "gcs", "az", "abfs", "memory")
"""Schemes that a user may name. http(s) is not among them: the server makes no web requests on behalf of users."""
ZIP, PICKLE = b"PK\x03\x04", b"\x80"


class ImportRefused(ValueError):
    """A file that cannot be imported: the field at fault, its value, and a message that explains what to do."""

    def __init__(self, pointer: str, value: object, message: str) -> None:
        super().__init__(f"{pointer}: {message}")
        self.pointer, self.value, self.message = pointer, value, message


Refuse = Callable[[str], ImportRefused]


@dataclass
class SourceFile:
    """A state dict as it was read, under the names of the program that wrote it."""

    file: str
    """Name of the weights file."""
    sha256: str
    bytes: int
    state: dict[str, Tensor]
    wrapper: str | None = None
    """Key of the state dict in its checkpoint."""
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The JSON documents of a directory, by file name."""


def read_source(source: str, scratch: Path, *, upload_name: str | None, limit: int, pointer: str) -> SourceFile:
    """Read a file, directory or uploaded tar (`upload_name` *.tar) at a path or URI; unpack and download into `scratch`.

    Raises ImportRefused at `pointer`.
    """

    def refuse(message: str) -> ImportRefused:
        return ImportRefused(pointer, (upload_name or source).removesuffix(".tar"), message)

    try:
        if upload_name is not None:  # a file that the server has written
            return _read_upload(Path(source), scratch, upload_name, refuse)
        path = _fetch(source, scratch / "fetched", limit, refuse)
        return _read_folder(path, refuse) if path.is_dir() else _read_file(path, path.name, refuse)
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror or error}; check the path and its permissions") from error


def _read_upload(path: Path, scratch: Path, name: str, refuse: Refuse) -> SourceFile:
    if name.endswith(".tar"):
        return _read_folder(_unpack(path, scratch / "unpacked", refuse), refuse)
    return _read_file(path, name, refuse)


def _fetch(source: str, target: Path, limit: int, refuse: Refuse) -> Path:
    """Return the local path of a source; remote files are copied to `target`."""
    scheme, separator, _ = source.partition("://")
    if not separator:
        if not source.startswith("/"):
            raise refuse("is a relative path, which the server cannot resolve; give an absolute path or a URI, or upload it")
        return _checked_local_path(Path(source), limit, refuse)
    if scheme not in SCHEMES:
        raise refuse(f"has the unsupported scheme {scheme}; upload the file, or use one of {', '.join(SCHEMES)}")
    if scheme == "file":
        return _checked_local_path(Path(source.removeprefix("file://")), limit, refuse)
    try:
        return _download(source, target, limit, refuse)
    except (ImportRefused, OSError):
        raise
    except Exception as error:  # a store's library may be missing, and may raise anything for wrong keys or names
        raise refuse(f"cannot be read ({_first_line(error)}); check the URI and the server's access to that store") from error


def _download(source: str, target: Path, limit: int, refuse: Refuse) -> Path:
    fs, path = open_filesystem(source)
    if not fs.exists(path):
        raise refuse("does not exist; check the URI")
    target.mkdir(parents=True)
    if not fs.isdir(path):
        copy = target / str(path).rsplit("/", 1)[-1]
        _copy(fs, path, copy, limit, refuse)
        return copy
    present = {str(name).rstrip("/").rsplit("/", 1)[-1] for name in fs.ls(path, detail=False)}
    weights = [name for name in FOLDER_WEIGHTS if name in present][:1]
    for name in [*weights, *(name for name in FOLDER_CONFIGS if name in present)]:
        _copy(fs, f"{path}/{name}", target / name, limit, refuse)
    return target


def _copy(fs: Any, path: str, target: Path, limit: int, refuse: Refuse) -> None:
    _expect_size(fs.size(path), limit, refuse)
    fs.get_file(path, str(target))


def _checked_local_path(path: Path, limit: int, refuse: Refuse) -> Path:
    expect_address(str(path))
    if not path.exists():
        raise refuse("does not exist; check the path, or upload the file")
    inside = [path / name for name in (*FOLDER_WEIGHTS, *FOLDER_CONFIGS)] if path.is_dir() else []
    for file in [each for each in inside if each.exists()] or [path]:
        expect_address(str(file))
        if file.is_file():
            _expect_size(file.stat().st_size, limit, refuse)
        elif not file.is_dir():  # opening a pipe waits for a writer
            raise refuse("is, or holds, a pipe, a socket or a device; give a regular file")
    return path


def _expect_size(size: int, limit: int, refuse: Refuse) -> None:
    if size > limit:
        raise refuse(f"has {size:,} bytes, at most {limit:,} are read; raise TINYCLIP_MAX_IMPORT_BYTES")


def _unpack(path: Path, target: Path, refuse: Refuse) -> Path:
    """Extract the known files of an uploaded tar; refuse anything but a plain file of a known name."""
    target.mkdir(parents=True)
    known = {*FOLDER_WEIGHTS, *FOLDER_CONFIGS}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isreg() or member.issparse() or member.name not in known:  # a sparse file grows on the disk
                    name = member.name[:MAX_SHOWN_NAME]
                    raise refuse(f"holds {name!r}; only these plain files are read: {', '.join(sorted(known))}")
                content = tar.extractfile(member)
                assert content is not None
                with open(target / member.name, "wb") as file:
                    shutil.copyfileobj(content, file)
    except ImportRefused:
        raise
    except (tarfile.TarError, ValueError, RecursionError) as error:  # damaged records, and long chains, of extended headers
        raise refuse(f"is not a complete tar ({_first_line(error)}); upload it again") from error
    return target


def _read_folder(folder: Path, refuse: Refuse) -> SourceFile:
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:MAX_SHOWN_FILES]) + (", …" if len(names) > MAX_SHOWN_FILES else "")
    weights = next((name for name in FOLDER_WEIGHTS if name in names), None)
    if weights is None:
        raise refuse(f"has no weights; one of {', '.join(FOLDER_WEIGHTS)} is needed, it has {shown or 'nothing'}")
    source = _read_file(folder / weights, weights, refuse)
    for name in FOLDER_CONFIGS:
        if name in names:
            source.configs[name] = _read_config(folder / name, refuse)
    return source


def _read_config(path: Path, refuse: Refuse) -> dict[str, Any]:
    with open(path, "rb") as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise refuse(f"has a {path.name} of more than {MAX_DOCUMENT_BYTES:,} bytes; save only the model's configuration there")
    return parse_object(data, lambda what: refuse(f"has a {path.name} that is {what}; save it again"))


def _read_file(path: Path, name: str, refuse: Refuse) -> SourceFile:
    with open(path, "rb") as file:
        start = file.read(4)
    if start == ZIP or start[:1] == PICKLE:
        wrapper, state = _extract_state_dict(_unpickle(path, refuse), refuse)
    else:
        wrapper, state = None, _read_safetensors(path, refuse)
    return SourceFile(name, file_digest(ServiceAddress(path)), path.stat().st_size, state, wrapper)


def _read_safetensors(path: Path, refuse: Refuse) -> dict[str, Tensor]:
    try:
        return load_state_dict(ServiceAddress(path))  # checked when it was found, or uploaded
    except WeightsError as error:
        reason = str(error).replace(str(path), "this")
        raise refuse(f"is neither a safetensors file nor one written by torch.save: {reason}") from error


def _unpickle(path: Path, refuse: Refuse) -> object:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise refuse("is a compressed archive, not a file of torch.save; upload the file inside it")
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise refuse("is a TorchScript program, which is not run; save its weights: torch.save(model.state_dict(), FILE)")
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise refuse(_unsafe_pickle_message(str(error))) from error
    except Exception as error:  # bytes that are not a checkpoint can make the reader raise anything, with a text from the file
        if is_out_of_memory(error):
            raise
        raise refuse(f"is not a complete file of torch.save ({type(error).__name__}); copy or download it again") from error
    return content


def _unsafe_pickle_message(reason: str) -> str:
    reference = re.search(r"GLOBAL ([\w.]+)", reason)
    cause = f"it references {reference[1][:MAX_SHOWN_NAME]}" if reference else "it contains more than plain tensors"
    return (
        f"was not opened: {cause}, and a file with more than tensors and plain containers can execute any program; "
        "save only the weights: torch.save(model.state_dict(), FILE)"
    )


def _extract_state_dict(content: object, refuse: Refuse) -> tuple[str | None, dict[str, Tensor]]:
    wrapper: list[str] = []
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        key = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if key is None:
            break
        wrapper.append(key)
        content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise refuse(f"contains no state dict; save one bare or under {' or '.join(WRAPPERS)}")
    state = {str(name): value for name, value in content.items()}
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.is_quantized or value.layout != torch.strided:
            raise refuse(f"has {shown_name(name)} = {type(value).__name__} among its weights; keep only plain tensors")
    return ".".join(wrapper) or None, state


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
