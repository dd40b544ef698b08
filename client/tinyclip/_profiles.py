"""The server and its token: from arguments, else `TINYCLIP_URL` and `TINYCLIP_TOKEN`, else a profile of the configuration file.

```toml
# ~/.config/tinyclip/config.toml
default = "lab"

[profiles.lab]
url = "https://tinyclip.lab.example"
token = "tc_…"
```
"""

import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyclip.errors import InputError

DEFAULT_URL = "http://127.0.0.1:8321"


@dataclass(frozen=True)
class Profile:
    """A server and its token."""

    url: str
    token: str | None = field(default=None, repr=False)


def current(
    *, url: str | None = None, token: str | None = None, name: str | None = None, environment: Mapping[str, str] = os.environ
) -> Profile:
    """Return the server to use. The file's token is used for the file's server only, never for another that is given.

    Raises `InputError` for a file or profile that cannot be read."""
    given_url = url or (None if name else environment.get("TINYCLIP_URL"))
    given_token = token or (None if name else environment.get("TINYCLIP_TOKEN"))
    if given_url:
        return Profile(given_url, given_token)
    stored = _stored_profile(_config_file(environment), name)
    return Profile(stored.url, given_token or stored.token)


def store(profile: Profile, name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Write a profile into the file and return the file; the first profile becomes the default.

    The rest of the file is kept, comments included; only its owner can read it. Raises `InputError` if it cannot be changed."""
    import tomlkit  # needed by no other command

    file = _config_file(environment)
    _read(file)  # raises for an invalid file instead of overwriting it
    config = tomlkit.parse(file.read_text(encoding="utf-8")) if file.exists() else tomlkit.document()
    config.setdefault("default", name)
    table = config.setdefault("profiles", tomlkit.table(is_super_table=True)).setdefault(name, tomlkit.table())
    table.update({"url": profile.url, **({"token": profile.token} if profile.token else {})})
    if not profile.token:
        table.pop("token", None)
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_private(file.resolve(), tomlkit.dumps(config))
    except OSError as error:
        raise InputError(str(file), f"cannot be written: {error.strerror or error}") from error
    return file


def _write_private(file: Path, text: str) -> None:
    """Write a file atomically; it is never readable by others."""
    descriptor, aside = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")  # with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(aside, file)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _config_file(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tinyclip" / "config.toml"


def _stored_profile(file: Path, name: str | None) -> Profile:
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
