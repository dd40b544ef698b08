"""Files of a model's folder beside its weights: read within limits, since anybody may have written them."""

from typing import Any

from tinyclip_workers.model.documents import parse_object
from tinyclip_workers.model.files.headers import WeightsError
from tinyclip_workers.model.tokenizers import MAX_TOKENIZER_BYTES, TOKENIZER_FILES
from tinyclip_workers.runtime.addresses import ServiceAddress, address_in
from tinyclip_workers.runtime.filesystems import open_store
from tinyclip_workers.runtime.user_files import SMALL_FILE_SECONDS, open_file

FILE_SECONDS = 60.0
"""Time limit for each file beside the weights, in a remote store."""

MAX_DOCUMENT_BYTES = 32 << 20
"""Limit of a configuration, a layout or a version's document. The last has the shards that the version was trained on."""
MAX_USER_DOCUMENT_BYTES = 4 << 20
"""The same for a folder that a user names: a parsed document takes up to 25 times its size."""


def read_json(folder: str, name: str) -> dict[str, Any]:
    address = address_in(folder, name)
    data = read_bytes(folder, name, MAX_DOCUMENT_BYTES if isinstance(address, ServiceAddress) else MAX_USER_DOCUMENT_BYTES)
    return parse_object(data, lambda what: WeightsError(f"{address} is {what}; write it again"))


def read_if_exists(folder: str, name: str) -> dict[str, Any] | None:
    """Read a JSON file of a folder; None if there is none. Raises WeightsError, OSError."""
    return read_json(folder, name) if open_store(folder, limit_s=FILE_SECONDS).exists(name) else None


def tokenizer_files(folder: str) -> dict[str, bytes]:
    """Read the files of a tokenizer in a folder, by name. Raises WeightsError, OSError."""
    store = open_store(folder, limit_s=FILE_SECONDS)
    return {name: read_bytes(folder, name, MAX_TOKENIZER_BYTES) for name in TOKENIZER_FILES if store.exists(name)}


def read_bytes(folder: str, name: str, limit: int) -> bytes:
    address = address_in(folder, name)
    with open_file(address, block_bytes=1 << 20, seconds=SMALL_FILE_SECONDS) as file:  # checked: a link may lead elsewhere
        data = file.read(limit + 1)
    if len(data) > limit:
        raise WeightsError(f"{address} has more than {limit:,} bytes; it is not the file of a model")
    return data
