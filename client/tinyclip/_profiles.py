"""Which server to talk to: what is said, else `TINYCLIP_URL` and `TINYCLIP_TOKEN`, else a profile of the configuration file.

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
    """A server and the token for it."""

    url: str
    token: str | None = field(default=None, repr=False)


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


def store(profile: Profile, name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Writes a profile into the file, which only its owner can read from then on; the first one becomes the default.

    What else the file says stays, comments included. Returns the file. Raises `InputError` for one that cannot be changed."""
    import tomlkit  # only whoever logs in needs it

    file = _config_file(environment)
    _read(file)  # a broken file is told of, not written over
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
    """Aside first, never readable by others, then renamed: a kill leaves the old file or the new one."""
    descriptor, aside = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")  # mkstemp makes it 0600
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
