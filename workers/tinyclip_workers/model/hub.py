"""Model hubs, as far as open_clip reaches them: is the file there, and bring it here."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from open_clip.pretrained import download_pretrained, download_pretrained_from_hf

CONFIG_FILE = "open_clip_config.json"
TIMEOUT_S = 10.0


class HubError(RuntimeError):
    """The hub has no such file, or cannot be reached from here."""


def fetch_config(repository: str) -> dict[str, Any]:
    """The `open_clip_config.json` of a repository `ORG/NAME`, from the local cache or the hub."""
    _must_be_there(repository, CONFIG_FILE)
    path = Path(download_pretrained_from_hf(repository, filename=CONFIG_FILE))
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config


def fetch_weights(repository: str) -> str:
    """Local path of a repository's weights, downloaded if they are not in the cache."""
    try:
        return str(download_pretrained_from_hf(repository))
    except Exception as error:  # open_clip and its hub client raise anything here
        raise _unreachable(f"hf-hub:{repository}", error) from error


def fetch_pretrained(tag: dict[str, Any], name: str) -> str:
    """Local path of the weights of an open_clip tag, downloaded if they are not in the cache."""
    try:
        return str(download_pretrained(tag))
    except Exception as error:
        raise _unreachable(name, error) from error


def check_pretrained(tag: dict[str, Any], name: str) -> None:
    """Raises HubError if the weights of an open_clip tag are neither in the cache nor offered by the hub."""
    repository, _, file = str(tag.get("hf_hub", "")).rpartition("/")
    if repository:
        _must_be_there(repository, file or "open_clip_pytorch_model.bin", name)


def _must_be_there(repository: str, file: str, name: str | None = None) -> None:
    safe = file.rsplit(".", 1)[0] + ".safetensors"
    if any(isinstance(try_to_load_from_cache(repository, known), str) for known in (file, safe, "open_clip_model.safetensors")):
        return
    try:
        get_hf_file_metadata(hf_hub_url(repository, file), timeout=TIMEOUT_S)
    except Exception as error:  # connection errors of several libraries, 401, 404, offline mode
        raise _unreachable(name or f"hf-hub:{repository}", error) from error


def _unreachable(name: str, error: Exception) -> HubError:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return HubError(
        f"{name} is not in the local cache and the hub does not give it ({first_line}); "
        "check the name, log in or download it on a machine with access and use local-dir:PATH"
    )
