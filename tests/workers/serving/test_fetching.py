"""Images by URL: off by default, else from public addresses only, despite hostile names, redirects and servers."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from tinyclip.hosts import is_private
from tinyclip_workers.data.image_input import BadImage
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.queries.fetching import Fetcher

from tests.workers.student_server import running, serving, serving_options
from tests.workers.students import encoded, random_image

PUBLIC = "127.0.0.1"
"""Treated as a public address in these tests; the other private addresses are not."""
IMAGE = encoded(random_image(0))


def is_forbidden(address: str) -> bool:
    return address != PUBLIC and is_private(address)


@dataclass
class Site:
    """A server of an image, of redirects and of hostile answers."""

    url: str = ""
    requests: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        self.requests.append(f"{request.headers['host'].partition(':')[0]}{request.url.path}")
        self.headers = dict(request.headers)
        await self.answer(request)(scope, receive, send)

    def answer(self, request: Request) -> Response:
        match request.url.path:
            case "/image.png":
                return Response(IMAGE, media_type="image/png")
            case "/to":
                return RedirectResponse(request.query_params["url"])
            case "/loop":
                return RedirectResponse("/loop")
            case "/slow":
                return StreamingResponse(slow_chunks())
            case "/large":
                return Response(b"\0" * 20_000)
            case "/unknown-length":
                return StreamingResponse(chunks(20))
            case "/zipped":
                return Response(b"\x1f\x8b" + b"\0" * 50, headers={"content-encoding": "gzip"})
        return Response(status_code=404)


async def slow_chunks() -> AsyncIterator[bytes]:
    for byte in IMAGE:
        yield bytes([byte])
        await asyncio.sleep(0.02)


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"\0" * 1000


class Resolver:
    """A fake DNS: each call returns the next answer for its name, and then the last one again."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(answer) for name, answer in answers.items()}
        self.requests: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.requests.append(host)
        if host not in self.answers:
            raise OSError("no such name")
        answers = self.answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture(scope="module")
def running_site() -> Iterator[Site]:
    site = Site()
    with running(site) as url:
        site.url = url
        yield site


@pytest.fixture
def site(running_site: Site) -> Site:
    running_site.requests.clear()
    return running_site


@pytest.fixture
def options() -> ServingOptions:
    return serving_options(
        Path("unused"), image_urls=True, max_image_bytes=10_000, image_url_timeout_s=5, image_url_hosts=["images.test", PUBLIC]
    )


@pytest.fixture
def resolver() -> Resolver:
    return Resolver(images_test=[[PUBLIC]], deep_images_test=[[PUBLIC]])


@pytest.fixture
def at(site: Site) -> Callable[[str, str], str]:
    """Return the URL of a path at a host name of the site."""
    port = site.url.rpartition(":")[2]
    return lambda host, path: f"http://{host}:{port}{path}"


async def rejection(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(BadImage) as bad:
        await fetcher.fetch(url)
    return str(bad.value)


class TestFetched:
    async def test_an_image(self, options: ServingOptions, resolver: Resolver, at: Any, site: Site) -> None:
        fetcher = Fetcher(options, resolver, is_forbidden)

        assert await fetcher.fetch(at("images.test", "/image.png")) == IMAGE
        assert await fetcher.fetch(at("deep.images.test", "/image.png")) == IMAGE
        assert site.headers.keys() <= {"host", "accept", "accept-encoding", "user-agent"}

    async def test_through_a_redirect(self, options: ServingOptions, resolver: Resolver, at: Any, site: Site) -> None:
        target = at("deep.images.test", "/image.png")

        assert await Fetcher(options, resolver, is_forbidden).fetch(at("images.test", f"/to?url={target}")) == IMAGE
        assert resolver.requests == ["images.test", "deep.images.test"]

    async def test_bodies_are_not_decompressed(self, options: ServingOptions, resolver: Resolver, at: Any) -> None:
        data = await Fetcher(options, resolver, is_forbidden).fetch(at("images.test", "/zipped"))

        assert data == b"\x1f\x8b" + b"\0" * 50


class TestRejected:
    @pytest.mark.parametrize(
        "host",
        ["127.0.0.2", "10.0.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "[::1]", "[fe80::1]", "[::ffff:10.0.0.1]",
         "[fd00::1]", "100.64.0.1", "[64:ff9b::a00:1]"],
    )  # fmt: skip
    async def test_private_addresses(self, options: ServingOptions, resolver: Resolver, host: str) -> None:
        open_to_all = options.model_copy(update={"image_url_hosts": []})

        assert "private network" in await rejection(Fetcher(open_to_all, resolver, is_forbidden), f"http://{host}/image.png")
        assert resolver.requests == []

    @pytest.mark.parametrize("host", ["2130706434", "0x7f000002", "127.2", "localhost"])
    async def test_other_spellings_of_private_addresses(self, options: ServingOptions, host: str) -> None:
        """As the system's resolver reads them."""
        open_to_all = options.model_copy(update={"image_url_hosts": []})

        why = await rejection(Fetcher(open_to_all, is_forbidden=is_private), f"http://{host}/image.png")

        assert "private network" in why or "no address" in why or "not http" in why

    async def test_a_name_with_one_private_address_among_public_ones(self, options: ServingOptions, at: Any, site: Site) -> None:
        resolver = Resolver(images_test=[[PUBLIC, "10.0.0.1"]])

        assert "private network" in await rejection(Fetcher(options, resolver, is_forbidden), at("images.test", "/image.png"))
        assert site.requests == []

    async def test_a_name_is_resolved_once_per_hop(self, options: ServingOptions, at: Any, site: Site) -> None:
        """The connection is made to the address that was checked, although the name has another one by now."""
        resolver = Resolver(images_test=[[PUBLIC], ["127.0.0.2"]])

        assert await Fetcher(options, resolver, is_forbidden).fetch(at("images.test", "/image.png")) == IMAGE
        assert resolver.requests == ["images.test"]

    async def test_the_same_name_at_the_next_hop_is_checked_again(self, options: ServingOptions, at: Any, site: Site) -> None:
        resolver = Resolver(images_test=[[PUBLIC], ["127.0.0.2"]])

        why = await rejection(Fetcher(options, resolver, is_forbidden), at("images.test", "/to?url=/image.png"))

        assert "private network" in why
        assert site.requests == ["images.test/to"]

    @pytest.mark.parametrize(
        ("target", "why"),
        [
            ("http://169.254.169.254/latest/meta-data", "fetches from"),
            ("http://127.0.0.2/", "fetches from"),
            ("file:///etc/passwd", "not http"),
            ("ftp://images.test/x", "not http"),
            ("http://user:secret@images.test/x", "user name or password"),
        ],
    )
    async def test_redirects_to_forbidden_urls(
        self, options: ServingOptions, resolver: Resolver, at: Any, site: Site, target: str, why: str
    ) -> None:
        assert why in await rejection(Fetcher(options, resolver, is_forbidden), at("images.test", f"/to?url={target}"))
        assert site.requests == ["images.test/to"]

    async def test_a_redirect_to_a_private_address_where_all_hosts_are_allowed(
        self, options: ServingOptions, resolver: Resolver, at: Any, site: Site
    ) -> None:
        resolver.answers["evil.test"] = [["10.0.0.1"]]
        allowed = options.model_copy(update={"image_url_hosts": ["images.test", "evil.test"]})

        why = await rejection(Fetcher(allowed, resolver, is_forbidden), at("images.test", "/to?url=http://evil.test/x"))

        assert "evil.test, in a private network" in why

    async def test_redirects_without_end(self, options: ServingOptions, resolver: Resolver, at: Any, site: Site) -> None:
        assert "more than 3 times" in await rejection(Fetcher(options, resolver, is_forbidden), at("images.test", "/loop"))
        assert len(site.requests) == 4

    @pytest.mark.parametrize(
        ("path", "why"),
        [("/large", "at least 20,000"), ("/unknown-length", "more than the 10,000"), ("/gone", "answered 404")],
    )
    async def test_large_and_failing_answers(
        self, options: ServingOptions, resolver: Resolver, at: Any, path: str, why: str
    ) -> None:
        assert why in await rejection(Fetcher(options, resolver, is_forbidden), at("images.test", path))

    async def test_a_slow_server(self, options: ServingOptions, resolver: Resolver, at: Any) -> None:
        impatient = options.model_copy(update={"image_url_timeout_s": 0.2})

        assert "within 0.2 s" in await rejection(Fetcher(impatient, resolver, is_forbidden), at("images.test", "/slow"))

    async def test_hosts_that_are_not_listed(self, options: ServingOptions, resolver: Resolver) -> None:
        for host in ("example.com", "images.test.example.com", "notimages.test"):
            assert "fetches from images.test" in await rejection(Fetcher(options, resolver, is_forbidden), f"http://{host}/x.png")
        assert resolver.requests == []

    async def test_other_ports_need_a_list_of_hosts(self, options: ServingOptions, resolver: Resolver) -> None:
        open_to_all = options.model_copy(update={"image_url_hosts": []})

        assert "at port 22" in await rejection(Fetcher(open_to_all, resolver, is_forbidden), "http://images.test:22/x.png")

    async def test_a_name_without_an_address_and_a_closed_port(self, options: ServingOptions, resolver: Resolver) -> None:
        fetcher = Fetcher(options.model_copy(update={"image_url_hosts": ["images.test", "nowhere.test"]}), resolver, is_forbidden)

        assert "has no address" in await rejection(fetcher, "http://nowhere.test/x.png")
        assert "could not be fetched" in await rejection(fetcher, "http://images.test:9/x.png")


class TestAnswers:
    """Over HTTP, in a deployment that fetches images and in one that does not."""

    def test_urls_are_off_unless_allowed(self, artifacts: Path, site: Site, resolver: Resolver, at: Any) -> None:
        options = serving_options(artifacts, max_image_bytes=10_000)
        body = {"input": [at("images.test", "/image.png"), base64.b64encode(IMAGE).decode()], "modality": "image"}
        with serving(options) as served, served.client() as http:
            off = http.post("/embeddings", json=body)
            inference = served.replica.models.own.inference
            assert inference._fetcher is None
            allowed = options.model_copy(update={"image_urls": True, "image_url_hosts": ["images.test"]})
            inference._fetcher = Fetcher(allowed, resolver, is_forbidden)
            on = http.post("/embeddings", json=body)
            body["input"][0] = at("images.test", "/large")
            bad = http.post("/embeddings", json=body)

        assert (off.status_code, off.json()["errors"][0]["pointer"]) == (422, "/input/0")
        assert "does not fetch URLs" in off.json()["errors"][0]["message"]
        first, second = (item["embedding"] for item in on.json()["data"])
        assert first == pytest.approx(second, abs=1e-6)
        assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (422, "/input/0")
        assert "scale the image down" in bad.json()["errors"][0]["message"]

    def test_the_memory_for_fetched_images_is_limited(
        self, artifacts: Path, site: Site, resolver: Resolver, at: Any
    ) -> None:
        options = serving_options(
            artifacts, image_urls=True, image_url_hosts=["images.test"], max_image_bytes=30_000, max_held_bytes=50_000
        )
        with serving(options) as served, served.client() as http:
            served.replica.models.own.inference._fetcher = Fetcher(options, resolver, is_forbidden)
            refused = http.post("/embeddings", json={"input": [at("images.test", "/large")] * 10, "modality": "image"})
            accepted = http.post("/embeddings", json={"input": [at("images.test", "/image.png")] * 3, "modality": "image"})

        assert (refused.status_code, refused.json()["code"]) == (429, "busy")
        assert accepted.status_code == 200  # nothing of the refused request is held any more
