"""Limits of the http(s) responses that fsspec reads: a server that a user names may send without end, or hardly at all."""

from aiohttp import ClientResponse, ClientTimeout

from tinyclip_workers.runtime.user_files import UnreadableFile

MAX_RESPONSE_BYTES = 32 << 20
"""Limit of a response that is read whole: a part of a file, at most a few megabytes, or a listing."""
TIMEOUT = ClientTimeout(total=300, sock_connect=10, sock_read=30)
"""Seconds for a whole request, to connect, and between two reads."""


class LimitedResponse(ClientResponse):
    """A response whose `read` is limited; fsspec reads ranges and listings with it, whatever the server sends.

    What is counted has been unpacked (Content-Encoding). aiohttp before 3.14.1 unpacks a received piece whole, 100 MiB and more.
    """

    async def read(self) -> bytes:
        """Raises UnreadableFile if the response is too large."""
        if self._body is None:
            body = bytearray()
            async for piece in self.content.iter_any():
                body += piece
                if len(body) > MAX_RESPONSE_BYTES:
                    self.close()
                    raise UnreadableFile(f"{self.url} sends more than {MAX_RESPONSE_BYTES:,} bytes for one request")
            self._body = bytes(body)
        return await super().read()
