"""Images by URL: fetched only where the deployment allows it, and only from public addresses.

The host of each hop is looked up once; its addresses are checked, and the connection goes to one of just these. So a name that
changes its address in between gets nowhere else, and a redirect is a new hop with all checks again.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinyclip.addresses import is_private

from tinyclip_workers.data.image_input import BadImage
from tinyclip_workers.serving.options import ServingOptions

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

MAX_REDIRECTS = 3
CONCURRENT = 16
"""Fetches of one replica at a time; others wait, within the time of their requests."""
CHUNK = 64 * 1024

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]

_URL = re.compile(r"\s*https?://", re.IGNORECASE)


def is_url(image: str | bytes) -> bool:
    return isinstance(image, str) and _URL.match(image[:100]) is not None


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of a name. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(target[0]) for *_, target in found))


class Fetcher:
    """Downloads images for one replica."""

    def __init__(
        self, options: ServingOptions, lookup: Lookup = look_up, refuses: Callable[[str], bool] = is_private
    ) -> None:
        """`lookup` and `refuses` (an IP address) are for tests."""
        self._max_bytes, self._seconds = options.max_image_bytes, options.image_url_timeout_s
        self._hosts = [host.lower() for host in options.image_url_hosts]
        self._lookup, self._refuses = lookup, refuses
        self._places = asyncio.Semaphore(CONCURRENT)

    async def fetch(self, url: str) -> bytes:
        """The bytes at an address. Raises BadImage, which says why not."""
        async with self._places:
            try:
                async with asyncio.timeout(self._seconds):
                    return await self._follow(url.strip())
            except TimeoutError as late:
                raise BadImage(f"could not be fetched within {self._seconds:g} s; send the image itself") from late

    async def _follow(self, address: str) -> bytes:
        import aiohttp  # a second to import, and most deployments fetch nothing
        from yarl import URL

        try:
            url = URL(address)  # what connects reads it the same way: no address can mean one thing here and another there
            for _ in range(MAX_REDIRECTS + 1):
                host, port = self._expect_allowed(url)
                addresses = await self._public_addresses(host, port)
                async with _pinned(host, addresses) as session, session.get(url, allow_redirects=False) as answer:
                    if answer.status not in (301, 302, 303, 307, 308):
                        return await self._read(answer)
                    url = url.join(URL(answer.headers.get("Location", "")))
        except BadImage:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise BadImage(f"could not be fetched ({type(error).__name__}); send the image itself") from error
        raise BadImage(f"was redirected more than {MAX_REDIRECTS} times; send the image itself, or its last address")

    def _expect_allowed(self, url: "URL") -> tuple[str, int]:
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
        """All of a host's, or none of them: one private among public ones is no accident."""
        try:
            addresses = [_plain(host)]
        except ValueError:
            try:
                addresses = [_plain(found) for found in await self._lookup(host, port)]
            except (OSError, UnicodeError) as error:
                raise BadImage(f"is at {host}, which has no address") from error
        if not addresses or any(self._refuses(address) for address in addresses):
            where = "in a private network or on this machine"
            raise BadImage(f"is at {host}, {where}, where nothing is fetched; send the image itself")
        return addresses

    async def _read(self, answer: "ClientResponse") -> bytes:
        if answer.status != 200:
            raise BadImage(f"could not be fetched: its server answered {answer.status}")
        if (answer.content_length or 0) > self._max_bytes:
            raise self._too_large(answer.content_length or 0)
        data = bytearray()
        async for chunk in answer.content.iter_chunked(CHUNK):
            data += chunk
            if len(data) > self._max_bytes:
                raise self._too_large(len(data))
        return bytes(data)

    def _too_large(self, size: int) -> BadImage:
        return BadImage(f"is at least {size:,} bytes, more than the {self._max_bytes:,} allowed; scale the image down")


def _plain(address: str) -> str:
    """An IP address in its one way to be written. Raises ValueError for anything else."""
    return str(ipaddress.ip_address(address.partition("%")[0]))


def _pinned(host: str, addresses: Sequence[str]) -> "ClientSession":
    """A session that reaches these addresses and nothing else, whatever the name means by now. It sends no cookies and no more
    than it must, heeds no proxy variables, and takes the bytes as they are: what is compressed could grow without end."""
    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Pinned(AbstractResolver):
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
        if _plain(str(target[0])) not in addresses:
            raise OSError(f"{target[0]} was not looked up")
        return socket.socket(family=family, type=kind, proto=protocol)

    connector = aiohttp.TCPConnector(resolver=Pinned(), use_dns_cache=False, socket_factory=checked_socket)
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False,
        headers={"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "tinyclip"},
    )  # fmt: skip
