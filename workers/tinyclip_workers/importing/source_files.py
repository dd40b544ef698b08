"""Read a state dict from a file, directory or uploaded tar without executing anything in it.

Pickles are read with torch's `weights_only`, which accepts only tensors and plain containers.
"""

import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from tinyclip_workers.data.tar_files import read_entries
from tinyclip_workers.model.documents import parse_object
from tinyclip_workers.model.files.folder_files import MAX_DOCUMENT_BYTES
from tinyclip_workers.model.files.folders import (
    CONFIG_FILE,
    LAYOUT_FILE,
    PREPROCESS_FILE,
    WEIGHTS_FILES,
)
from tinyclip_workers.model.files.headers import MAX_SHOWN_NAME, WeightsError, shown_name
from tinyclip_workers.model.files.weights import read_digest, read_state_dict
from tinyclip_workers.model.tokenizers import MAX_TOKENIZER_BYTES, SETTINGS_FILE, TOKENIZER_FILES
from tinyclip_workers.runtime.addresses import ServiceAddress, address_in, expect_address
from tinyclip_workers.runtime.filesystems import open_filesystem
from tinyclip_workers.runtime.memory import is_out_of_memory
from tinyclip_workers.runtime.user_files import UnreadableFile, open_file, opened_path

FOLDER_WEIGHTS = (*WEIGHTS_FILES, "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pt", "pytorch_model.bin")
"""File names of weights in a directory, in order of preference."""
FOLDER_CONFIGS = (CONFIG_FILE, LAYOUT_FILE, PREPROCESS_FILE)
FOLDER_TOKENIZER = (*TOKENIZER_FILES, SETTINGS_FILE)
WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training programs keep the state dict in a checkpoint."""
SCHEMES = ("file", "s3", "gs", "gcs", "az", "abfs", "memory")
"""Schemes that a user may name. http(s) is not among them: the server makes no web requests on behalf of users."""
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
SAFETENSORS = re.compile(rb".{3}\0{5}\{", re.DOTALL)
"""The size of the header, less than 16 MiB, whose first byte may be that of a pickle, and the header's first character."""


class ImportRefused(ValueError):
    """A file that cannot be imported: the field at fault, its value, and a message that explains what to do."""

    def __init__(self, pointer: str, value: object, message: str) -> None:
        super().__init__(f"{pointer}: {message}")
        self.pointer, self.value, self.message = pointer, value, message


Refuse = Callable[[str], ImportRefused]
Files = dict[str, bytes]
"""Contents by name."""


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
    tokenizer: Files = field(default_factory=dict)
    """The files of its tokenizer, by name."""


def read_source(source: str, scratch: Path, *, upload_name: str | None, limit: int, pointer: str) -> SourceFile:
    """Read a file, directory or uploaded tar (`upload_name` *.tar) at a path or URI; unpack and download into `scratch`.

    Raises ImportRefused at `pointer`.
    """

    def refuse(message: str) -> ImportRefused:
        return ImportRefused(pointer, (upload_name or source).removesuffix(".tar"), message)

    try:
        if upload_name is not None:  # a file that the server has written
            return _read_upload(Path(source), scratch, upload_name, limit, refuse)
        address = _fetch(source, scratch / "fetched", limit, refuse)
        name = address.rstrip("/").rsplit("/", 1)[-1]
        return _read_folder(address, limit, refuse) if os.path.isdir(address) else _read_file(address, name, limit, refuse)
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror or error}; check the path and its permissions") from error


def _read_upload(path: Path, scratch: Path, name: str, limit: int, refuse: Refuse) -> SourceFile:
    if name.endswith(".tar"):
        return _read_folder(_unpack(path, scratch / "unpacked", refuse), limit, refuse)
    return _read_file(ServiceAddress(path), name, limit, refuse)


def _fetch(source: str, target: Path, limit: int, refuse: Refuse) -> str:
    """Return the local path of a source, which is checked again when it is opened; remote files are copied to `target`."""
    scheme, separator, _ = source.partition("://")
    if not separator:
        if not source.startswith("/"):
            raise refuse("is a relative path, which the server cannot resolve; give an absolute path or a URI, or upload it")
        return _existing_path(source, refuse)
    if scheme not in SCHEMES:
        raise refuse(f"has the unsupported scheme {scheme}; upload the file, or use one of {', '.join(SCHEMES)}")
    if scheme == "file":
        return _existing_path(source.removeprefix("file://"), refuse)
    try:
        return ServiceAddress(_download(source, target, limit, refuse))
    except (ImportRefused, OSError):
        raise
    except Exception as error:  # a store's library may be missing, and may raise anything for wrong keys or names
        raise refuse(f"cannot be read ({_first_line(error)}); check the URI and the server's access to that store") from error


def _download(source: str, target: Path, limit: int, refuse: Refuse) -> Path:
    fs, path = open_filesystem(source)
    if not fs.exists(path):
        raise refuse("does not exist; check the URI")
    target.mkdir(parents=True)
    if fs.info(path)["type"] != "directory":  # S3's `isdir` lists the folder
        copy = target / str(path).rsplit("/", 1)[-1]
        _copy(fs, path, copy, limit, refuse)
        return copy
    weights = next((name for name in FOLDER_WEIGHTS if fs.exists(f"{path}/{name}")), None)  # a listing may be endless
    others = [name for name in (*FOLDER_CONFIGS, *FOLDER_TOKENIZER) if fs.exists(f"{path}/{name}")]
    for name in [*([] if weights is None else [weights]), *others]:
        _copy(fs, f"{path}/{name}", target / name, limit, refuse)
    return target


def _copy(fs: Any, path: str, target: Path, limit: int, refuse: Refuse) -> None:
    _expect_size(fs.size(path), limit, refuse)
    fs.get_file(path, str(target))


def _existing_path(path: str, refuse: Refuse) -> str:
    expect_address(path)
    if not os.path.exists(path):
        raise refuse("does not exist; check the path, or upload the file")
    return path


@contextmanager
def _open(address: str, limit: int, refuse: Refuse) -> Iterator[IO[bytes]]:
    """Open a file of at most `limit` bytes. All of it is read from there: a link may be replaced at any time."""
    try:
        file = open_file(address)
    except UnreadableFile as error:
        raise refuse("is, or holds, a pipe, a socket, a device or another folder; give a regular file") from error
    with file:
        _expect_size(os.fstat(file.fileno()).st_size, limit, refuse)
        yield file


def _expect_size(size: int, limit: int, refuse: Refuse) -> None:
    if size > limit:
        raise refuse(f"has {size:,} bytes, at most {limit:,} are read; raise TINYCLIP_MAX_IMPORT_BYTES")


def _unpack(path: Path, target: Path, refuse: Refuse) -> ServiceAddress:
    """Extract the known files of an uploaded tar; refuse anything but a plain file of a known name."""
    target.mkdir(parents=True)
    known = {*FOLDER_WEIGHTS, *FOLDER_CONFIGS, *FOLDER_TOKENIZER}
    try:
        with open(path, "rb") as upload:
            for entry in read_entries(upload):
                if entry.problem or not entry.is_plain or entry.name not in known:
                    shown = entry.name[:MAX_SHOWN_NAME]
                    raise refuse(f"holds {shown!r}; only these plain files are read: {', '.join(sorted(known))}")
                with open(target / entry.name, "wb") as file:
                    for piece in entry.read():
                        file.write(piece)
    except tarfile.TarError as error:
        raise refuse(f"is not a complete tar ({_first_line(error)}); upload it again") from error
    return ServiceAddress(target)


def _read_folder(folder: str, limit: int, refuse: Refuse) -> SourceFile:
    weights = next((name for name in FOLDER_WEIGHTS if os.path.exists(address_in(folder, name))), None)
    if weights is None:
        raise refuse(f"has no weights; one of {', '.join(FOLDER_WEIGHTS)} is needed")
    source = _read_file(address_in(folder, weights), weights, limit, refuse)
    for name in FOLDER_CONFIGS:
        if os.path.exists(address_in(folder, name)):
            data = _read_small(address_in(folder, name), name, limit, MAX_DOCUMENT_BYTES, refuse)
            source.configs[name] = parse_object(data, partial(_not_json, name, refuse))
    for name in FOLDER_TOKENIZER:
        if os.path.exists(address_in(folder, name)):
            source.tokenizer[name] = _read_small(address_in(folder, name), name, limit, MAX_TOKENIZER_BYTES, refuse)
    return source


def _not_json(name: str, refuse: Refuse, what: str) -> ImportRefused:
    return refuse(f"has a {name} that is {what}; save it again")


def _read_small(address: str, name: str, limit: int, most: int, refuse: Refuse) -> bytes:
    with _open(address, limit, refuse) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise refuse(f"has a {name} of more than {most:,} bytes; it is not the file of a model")
    return data


def _read_file(address: str, name: str, limit: int, refuse: Refuse) -> SourceFile:
    with _open(address, limit, refuse) as file:
        start = file.read(9)
        if start.startswith((ZIP, PICKLE)) and not SAFETENSORS.match(start):
            wrapper, state = _extract_state_dict(_unpickle(file, refuse), refuse)
        else:
            wrapper, state = None, _read_safetensors(file, refuse)
        return SourceFile(name, read_digest(file), os.fstat(file.fileno()).st_size, state, wrapper)


def _read_safetensors(file: IO[bytes], refuse: Refuse) -> dict[str, Tensor]:
    try:
        return read_state_dict(file, "this")
    except WeightsError as error:
        raise refuse(f"is neither a safetensors file nor one written by torch.save: {error}") from error


def _unpickle(file: IO[bytes], refuse: Refuse) -> object:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise refuse("is a compressed archive, not a file of torch.save; upload the file inside it")
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise refuse("is a TorchScript program, which is not run; save its weights: torch.save(model.state_dict(), FILE)")
    file.seek(0)
    try:
        content: object = torch.load(opened_path(file) or file, map_location="cpu", weights_only=True)
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
