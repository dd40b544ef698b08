"""Committed folders: several files that count only once a manifest, written last, names them with their digests."""

import hashlib
import json
import logging

from tinyclip.artifacts.paths import MANIFEST
from tinyclip.artifacts.remote import StoreUnavailable
from tinyclip.artifacts.store import ArtifactsStore

log = logging.getLogger(__name__)


def write_committed(store: ArtifactsStore, path: str, files: dict[str, bytes]) -> None:
    """Write files, then the manifest that commits them."""
    for name, data in files.items():
        store.write_bytes(f"{path}/{name}", data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    store.write_bytes(f"{path}/{MANIFEST}", json.dumps({"sha256": digests}, indent=1).encode())


def read_committed(store: ArtifactsStore, path: str, *, only: str | None = None) -> dict[str, bytes] | None:
    """Return the files of a committed folder; None if the manifest is missing or a file does not match it.

    `only` is the name of the single file to read: others are neither read nor checked, and it may be missing.

    Raises StoreUnavailable: a folder that cannot be read now may be complete.
    """
    if not store.exists(f"{path}/{MANIFEST}"):
        return None
    try:
        digests: dict[str, str] = json.loads(store.read_bytes(f"{path}/{MANIFEST}"))["sha256"]
        files = {name: store.read_bytes(f"{path}/{name}") for name in digests if only in (None, name)}
    except StoreUnavailable:
        raise
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s is not a complete folder: %s", store.uri(path), error)
        return None
    changed = [name for name, data in files.items() if hashlib.sha256(data).hexdigest() != digests[name]]
    if changed:
        log.warning("%s is not a complete folder: %s changed after it was written", store.uri(path), ", ".join(changed))
        return None
    return files
