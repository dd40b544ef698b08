"""Rules for the addresses that users name (shards, class lists, weights, imports): which URLs and paths may be read.

Three rules apply, in this order: the text is acceptable (`address_problem`), it does not lead to the service's own files
(`service_problem`), and it lies below a configured root, if there are any (`outside_problem`). The server checks when a request
arrives, the engine checks again when it opens a file.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urlsplit

from tinyclip.hosts import is_private

SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "az", "memory", "http", "https")
"""Schemes of file stores. Other schemes of the same drivers run code, open sessions or unpack archives inside archives."""
WEB = ("http", "https")
ALLOW_PRIVATE = "TINYCLIP_ALLOW_PRIVATE_URLS"
"""The environment variable of the setting, which is passed on to workers."""

DATA_ROOTS = "TINYCLIP_DATA_ROOTS"
"""The environment variable with the folders and URI prefixes that addresses must lie below; unset: any address."""
READABLE_ROOTS = "TINYCLIP_READABLE_ROOTS"
"""The variable that passes them on to workers, as a JSON list."""
SERVICE_PLACES = "TINYCLIP_SERVICE_PLACES"
"""The variable that passes the places of the service's own files on to workers, as a JSON list."""
ARTIFACTS_ROOT = "TINYCLIP_ARTIFACTS_ROOT"
"""The variable that passes the root of the artifacts store on to workers, which find `registry:` models below it."""

MAX_SEGMENTS = 500
"""Slashes of an address, those of brace lists included. Resolving a path takes time that grows with their square."""

NEVER_READ = ("/proc", "~/.ray/auth_token")
"""Environments and memory of processes, also of the service's; Ray's token, with which a client runs code on the cluster."""

RAY_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
"""Ray's own variable with the file of its token on this machine."""

_ALIASES = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}
_PATTERN = re.compile(r"[{*?\[]")
_RANGE = re.compile(r"\{\w+\.\.\w+(\.\.-?\d+)?\}")
_DOTS = re.compile(r"\.\.|(?:^|[{},/])\.(?=[{},/]|$)")
"""Dots that can become a step upwards once braces are expanded."""
_ESCAPED = re.compile(r"%2f|%5c|\\", re.IGNORECASE)
_IN_BRACKETS = re.compile(r"\[[^\[\]/]*\]")
"""An IPv6 address, or a glob. No bracket may begin inside: the search for many open ones would take quadratic time."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""Characters that parsers of URLs drop, so that what is checked is not what is opened."""
Resolve = Callable[[str], str]
"""Returns an absolute path without links and `..`. One function with a memory may serve one request: links may change."""


@dataclass(frozen=True)
class AddressRules:
    """The rules of one service."""

    roots: tuple[str, ...] = ()
    """Folders and URI prefixes that addresses must lie below; none: any address."""
    service: tuple[str, ...] = ()
    """Folders, files and URI prefixes of the service itself, which no address may reach."""
    allow_private: bool = False
    """Allow http(s) addresses on this machine and in private networks."""

    def problem(self, address: str, resolve: Resolve | None = None) -> str | None:
        """Return why an address is refused, and what to do; None if it is acceptable before its host is resolved.

        `resolve` is one `resolver` for all addresses of a request; None: another for each address.
        """
        return address_problem(address, allow_private=self.allow_private) or self.place_problem(address, resolve)

    def place_problem(self, address: str, resolve: Resolve | None = None) -> str | None:
        """Return why an address may not be read, by the place that it leads to."""
        resolve = resolve or resolver()
        problem = service_problem(address, self.service, resolve)
        return outside_problem(address, self.roots, resolve) if problem is None and self.roots else problem

    def environment(self) -> dict[str, str]:
        """Return the variables from which `from_environment` makes the same rules in a worker."""
        return {
            ALLOW_PRIVATE: "1" if self.allow_private else "0",
            READABLE_ROOTS: json.dumps(self.roots),
            SERVICE_PLACES: json.dumps(self.service),
        }

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "AddressRules":
        roots, service = (json.loads(environment.get(name) or "[]") for name in (READABLE_ROOTS, SERVICE_PLACES))
        private = environment.get(ALLOW_PRIVATE, "").lower() in ("1", "true", "yes", "on")
        token = environment.get(RAY_TOKEN_PATH)
        return cls(tuple(roots), (*service, *([token] if token else [])), private)


def address_problem(address: str, *, allow_private: bool) -> str | None:
    """Return why an address is refused, and what to do; None if its text is acceptable."""
    if address.count("/") > MAX_SEGMENTS:
        return f"has {address.count('/'):,} slashes, more than {MAX_SEGMENTS:,}; write a shorter path, or several patterns"
    if _CONTROL.search(address):
        return "has a control character, as a tab or a line end; write it without"
    scheme, mark, rest = address.partition("://")
    web = mark and scheme.lower() in WEB
    if web and _split_url(address) is None:
        return "is not a URL"
    if "::" in _IN_BRACKETS.sub("", address):
        return "is a chain of addresses (::), which is not supported; name the file itself"
    if not mark:
        colon = re.match(r"(file|local):", address, re.IGNORECASE)
        return f"starts with {colon[0]} but is not a URL; write the path alone, or file:///PATH" if colon else None
    if scheme.lower() not in SCHEMES:
        return f"has the scheme {scheme}://; use one of {', '.join(SCHEMES)}, or a local path"
    if web:
        return _web_problem(address, allow_private)
    if scheme.lower() != "file" and not _segments(address)[1]:
        return f"names no bucket; write {scheme}://BUCKET/PATH"
    if rest.startswith("arn:"):
        return "names a bucket by its ARN; give the bucket's own name"
    return "has .. in its path; write the path without it" if ".." in rest.split("/") else None


def root_problem(root: str) -> str | None:
    """Return why a folder or URI prefix cannot be a data root, and what to do; None if it can."""
    if "://" not in root:
        relative = "is a relative path, which each process resolves differently; use an absolute path"
        problem = None if root.startswith("/") else relative
    elif root.partition("://")[0].lower() == "file":
        problem = "is a URL of a local folder; write its path"
    else:
        problem = address_problem(root, allow_private=True)
        if problem is None and len(_segments(root)[1]) == 0:
            problem = "names no bucket or host; allow one at least"
    return problem or ("is a pattern; name the folder" if _PATTERN.search(root) else None)


def resolver() -> Resolve:
    """Return a function that resolves each path once, for the addresses of one request and the places they are compared with."""
    return lru_cache(maxsize=1024)(_resolve)


def service_problem(address: str, service: Sequence[str], resolve: Resolve | None = None) -> str | None:
    """Return why an address that leads to one of the places of the service is refused; None for any other.

    `..` and symlinks are resolved first. A pattern is refused if the folder before its first brace or glob is such a place;
    its matches are checked when it is expanded.
    """
    local, resolve = _local_path(address), resolve or resolver()
    if local is not None:
        found = {resolve(path) for path in (local, _fixed_folder(local))}
        places = [resolve(place) for place in (*service, *NEVER_READ) if "://" not in place]
        reached = any(_is_below(path, place) for path in found for place in places)
    else:
        variants = {address, unquote(address), unquote(unquote(address))}
        remote = [_segments(place) for place in service if "://" in place]
        reached = any(_starts_with(_segments(variant), place) for variant in variants for place in remote)
    if not reached:
        return None
    return "belongs to the service itself, whose files no address may name; name a model as registry:NAME@VERSION"


def outside_problem(address: str, roots: Sequence[str], resolve: Resolve | None = None) -> str | None:
    """Return why an address outside of all roots is refused, and what to do; None for one below a root.

    `..` and symlinks are resolved first. For a pattern, the folder before its first brace or glob is checked; its
    matches are checked when they are opened.
    """
    local, resolve = _local_path(address), resolve or resolver()
    if local is None:
        return _outside_uri_problem(address, roots)
    folders = [root for root in roots if "://" not in root]
    if not local.startswith("/"):
        return f"is a relative path; give an absolute one below {' or '.join(folders) or 'a configured root'}"
    if _leads_upwards(local):
        return "has dots after a brace or glob that may lead upwards; write it without"
    path = _fixed_folder(local)
    found = {resolve(path), resolve(local)}
    if all(any(_is_below(each, resolve(root)) for root in folders) for each in found):
        return None
    leads = "" if resolve(path) == path.rstrip("/") else f" (it leads to {resolve(path)})"
    return _outside(roots, leads)


def _outside_uri_problem(address: str, roots: Sequence[str]) -> str | None:
    segments, prefixes = _segments(address), [_segments(root) for root in roots if "://" in root]
    host = segments[1] if len(segments) > 1 else ""
    path = address.partition("://")[2].partition("/")[2]
    written = (path.partition("?")[0] if segments[0] in WEB else path).removesuffix("/").split("/")
    if _PATTERN.search(host) and segments[0] not in WEB:
        return "has a pattern in the name of its bucket; name the bucket"
    if _leads_upwards("/" + path) or any(_ESCAPED.search(part) or unquote(part) in (".", "..") for part in written):
        return "has dots or escaped slashes that may lead upwards; write it without"
    if "" in written and path:
        return "has // in its path; write it with one slash"
    if any(_starts_with(_segments(_fixed_folder(address)), prefix) or segments == prefix for prefix in prefixes):
        return None
    return _outside(roots)


def _outside(roots: Sequence[str], leads: str = "") -> str:
    allowed = ", ".join(roots)
    return f"lies outside of the places that may be read{leads}: {allowed}; move it there, or have {DATA_ROOTS} name its place"


def _leads_upwards(path: str) -> bool:
    pattern = _PATTERN.search(path)
    if pattern is None:
        return False
    folder, _, _ = path[: pattern.start()].rpartition("/")
    return _DOTS.search(_RANGE.sub("0", path[len(folder) :])) is not None


def _fixed_folder(path: str) -> str:
    """Return the folder before a pattern's first brace or glob; a path without one unchanged."""
    pattern = _PATTERN.search(path)
    return path if pattern is None else path[: pattern.start()].rpartition("/")[0] + "/"


def _local_path(address: str) -> str | None:
    """Return the path of a local address; None for another. An address with an ambiguous scheme, as `{s3,x}://`, is local."""
    scheme, mark, rest = address.partition("://")
    if not mark or not re.fullmatch(r"[A-Za-z0-9+]+", scheme):
        return address
    return rest if scheme.lower() == "file" else None


def _resolve(path: str) -> str:
    """Return an absolute path without links, `..` and repeated slashes, of which POSIX keeps two at the start."""
    found = os.path.realpath(os.path.expanduser(path))
    return "/" + found.lstrip("/") if found.startswith("//") else found


def _segments(address: str) -> tuple[str, ...]:
    """Return scheme, bucket or host, and the segments of the path of a URI; equal for all spellings of one place."""
    scheme, _, rest = address.partition("://")
    scheme = _ALIASES.get(scheme.lower(), scheme.lower())
    place, *path = [part for part in rest.split("/") if part] or [""]
    place = place.lower()
    if scheme == "abfs":
        place = place.partition("@")[0]  # the account may be given by the environment instead
    elif scheme in WEB:
        place = place.removesuffix(":80" if scheme == "http" else ":443").rstrip(".")
    return scheme, place, *path


def _starts_with(segments: tuple[str, ...], prefix: tuple[str, ...]) -> bool:
    return segments[: len(prefix)] == prefix


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def private_problem(host: str) -> str:
    return f"is at {host}, in a private network or on this machine; set {ALLOW_PRIVATE}=1 on the server to allow that"


def _web_problem(address: str, allow_private: bool) -> str | None:
    parts = _split_url(address)
    if parts is None:
        return "is not a URL"
    host = parts.hostname
    if not host:
        return "names no host"
    if parts.username is not None:
        return "has a user name or password in it, which others could read in the spec; leave it out"
    try:
        private = is_private(host)
    except ValueError:  # a name, which is resolved when the address is opened
        private = host == "localhost" or host.endswith(".localhost")
    return private_problem(host) if private and not allow_private else None


def _split_url(address: str) -> SplitResult | None:
    try:
        return urlsplit(address)
    except ValueError:  # a bracket without its counterpart, or no IPv6 address in brackets
        return None
