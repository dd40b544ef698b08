"""Download images by URL: only where the deployment allows it, and only from public addresses.

The host of each hop is resolved once, its addresses are checked, and the connection is made to one of exactly these. DNS
rebinding therefore has no effect, and a redirect is a new hop with all checks again.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinyclip.hosts import is_private

from tinyclip_workers.data.image_input import BadImage
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.queries.bodies import hold

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

MAX_REDIRECTS = 3
MAX_CONCURRENT = 16
"""Concurrent downloads of one replica; further ones wait, within the time limit of their request."""
CHUNK_BYTES = 64 * 1024

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_URL = re.compile(r"\s*https?://", re.IGNORECASE)


def is_url(image: str | bytes) -> bool:
    return isinstance(image, str) and _URL.match(image[:100]) is not None


async def resolve_host(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host name. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(target[0]) for *_, target in found))


class Fetcher:
    """Downloader of images for one replica."""

    def __init__(
        self, options: ServingOptions, resolve: Resolve = resolve_host, is_forbidden: Callable[[str], bool] = is_private
    ) -> None:
        """Tests replace `resolve` and `is_forbidden`, which decides on an IP address."""
        self._options, self._max_bytes, self._timeout_s = options, options.max_image_bytes, options.image_url_timeout_s
        self._hosts = [host.lower() for host in options.image_url_hosts]
        self._resolve, self._is_forbidden = resolve, is_forbidden
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)

    async def fetch(self, url: str) -> bytes:
        """Return the bytes at a URL. Raises BadImage with the reason, ProblemError (429) if the memory for images is full."""
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._follow(url.strip())
            except TimeoutError as late:
                raise BadImage(f"could not be fetched within {self._timeout_s:g} s; send the image itself") from late

    async def _follow(self, address: str) -> bytes:
        import aiohttp  # takes a second to import, and most deployments fetch nothing
        from yarl import URL

        try:
            url = URL(address)  # aiohttp parses it the same way, so that a URL has one meaning in the check and in the connection
            for _ in range(MAX_REDIRECTS + 1):
                host, port = self._checked_host(url)
                addresses = await self._public_addresses(host, port)
                async with _pinned_session(host, addresses) as session, session.get(url, allow_redirects=False) as answer:
                    if answer.status not in (301, 302, 303, 307, 308):
                        return await self._read(answer)
                    url = url.join(URL(answer.headers.get("Location", "")))
        except BadImage:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise BadImage(f"could not be fetched ({type(error).__name__}); send the image itself") from error
        raise BadImage(f"was redirected more than {MAX_REDIRECTS} times; send the image itself, or its last address")

    def _checked_host(self, url: "URL") -> tuple[str, int]:
        """Return host and port. Raises BadImage for a URL that this deployment does not fetch."""
        host, port = (url.raw_host or "").rstrip(".").lower(), url.port
        if url.scheme not in ("http", "https") or not host or port is None:
            raise BadImage("leads to an address that is not http or https")
        if url.user is not None or url.password is not None:
            raise BadImage("has a user name or password in its address, which is not sent; leave it out")
        if self._hosts and not any(host == known or host.endswith(f".{known}") for known in self._hosts):
            raise BadImage(f"is at {host}, and this deployment fetches from {', '.join(self._hosts)} only; send the image itself")
        if not self._hosts and port not in (80, 443):
            raise BadImage(f"is at port {port}, and only 80 and 443 are fetched from; send the image itself")
        return host, port

    async def _public_addresses(self, host: str, port: int) -> list[str]:
        """Return all addresses of a host. Raises BadImage if one of them is private: such a mixture is no accident."""
        try:
            addresses = [_canonical(host)]
        except ValueError:
            try:
                addresses = [_canonical(found) for found in await self._resolve(host, port)]
            except (OSError, UnicodeError) as error:
                raise BadImage(f"is at {host}, which has no address") from error
        if not addresses or any(self._is_forbidden(address) for address in addresses):
            where = "in a private network or on this machine"
            raise BadImage(f"is at {host}, {where}, where nothing is fetched; send the image itself")
        return addresses

    async def _read(self, answer: "ClientResponse") -> bytes:
        if answer.status != 200:
            raise BadImage(f"could not be fetched: its server answered {answer.status}")
        if (answer.content_length or 0) > self._max_bytes:
            raise self._too_large(answer.content_length or 0)
        data = bytearray()
        async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
            data += chunk
            if len(data) > self._max_bytes:
                raise self._too_large(len(data))
            hold(len(chunk), self._options)
        return bytes(data)

    def _too_large(self, size: int) -> BadImage:
        return BadImage(f"is at least {size:,} bytes, more than the {self._max_bytes:,} allowed; scale the image down")


def _canonical(address: str) -> str:
    """Return an IP address in its canonical form. Raises ValueError for anything else."""
    return str(ipaddress.ip_address(address.partition("%")[0]))


def _pinned_session(host: str, addresses: Sequence[str]) -> "ClientSession":
    """Return a session that connects to these addresses only, whatever the name resolves to by now.

    It sends no cookies and only the headers it must, ignores proxy variables, and does not decompress: a compressed body could
    expand without limit.
    """
    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult

    class PinnedResolver(AbstractResolver):
        async def resolve(self, name: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
            if name.lower().rstrip(".") != host:
                raise OSError(f"{name} is not {host}")
            return [
                ResolveResult(
                    hostname=name, host=address, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                )
                for address in addresses
            ]  # fmt: skip

        async def close(self) -> None:
            pass

    def checked_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, target = info
        if _canonical(str(target[0])) not in addresses:
            raise OSError(f"{target[0]} is not an address of {host}")
        return socket.socket(family=family, type=kind, proto=protocol)

    connector = aiohttp.TCPConnector(resolver=PinnedResolver(), use_dns_cache=False, socket_factory=checked_socket)
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False,
        headers={"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "tinyclip"},
    )  # fmt: skip
