"""Which server to talk to: what is said, else `TINYCLIP_URL` and `TINYCLIP_TOKEN`, else a profile of the configuration file.

```toml
# ~/.config/tinyclip/config.toml
default = "lab"

[profiles.lab]
url = "https://tinyclip.lab.example"
token = "tck_…"
```
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyclip.errors import InputError

DEFAULT_URL = "http://127.0.0.1:8321"


@dataclass(frozen=True)
class Profile:
    """A server and the token for it."""

    url: str
    token: str | None = None


def current(
    *, url: str | None = None, token: str | None = None, name: str | None = None, environment: Mapping[str, str] = os.environ
) -> Profile:
    """The server to use. A token of the file goes to the file's server only, never to another that was named beside it.

    Raises `InputError` for a file or profile that cannot be read."""
    said_url = url or (None if name else environment.get("TINYCLIP_URL"))
    said_token = token or (None if name else environment.get("TINYCLIP_TOKEN"))
    if said_url:
        return Profile(said_url, said_token)
    filed = _filed(_config_file(environment), name)
    return Profile(filed.url, said_token or filed.token)


def _config_file(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tinyclip" / "config.toml"


def _filed(file: Path, name: str | None) -> Profile:
    config = _read(file)
    profiles = config.get("profiles", {})
    chosen = name or config.get("default")
    if chosen is None:
        return Profile(DEFAULT_URL)
    if chosen not in profiles:
        has = ", ".join(sorted(profiles)) or "no profiles"
        raise InputError(f"profile {chosen!r}", f"{file} has {has}; add [profiles.{chosen}] with url = …")
    return Profile(profiles[chosen].get("url", DEFAULT_URL), profiles[chosen].get("token"))


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as broken:
        raise InputError(str(file), f"not valid TOML: {broken}") from broken
