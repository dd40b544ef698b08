"""Images by URL: off unless allowed, and then from public addresses only, whatever a name, a redirect or a server tries."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from tinyclip.addresses import is_private
from tinyclip_workers.data.image_input import BadImage
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.queries.fetching import Fetcher

from tests.workers.student_server import running, serving
from tests.workers.students import encoded, random_image, write_student

PUBLIC = "127.0.0.1"
"""Plays a public address in these tests; every other address of this machine is what it is."""
PICTURE = encoded(random_image(0))


def refuses(address: str) -> bool:
    return address != PUBLIC and is_private(address)


@dataclass
class Site:
    """A server of pictures, and of what else one may meet."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        self.asked.append(f"{request.headers['host'].partition(':')[0]}{request.url.path}")
        self.headers = dict(request.headers)
        await self.answer(request)(scope, receive, send)

    def answer(self, request: Request) -> Response:
        match request.url.path:
            case "/picture.png":
                return Response(PICTURE, media_type="image/png")
            case "/to":
                return RedirectResponse(request.query_params["url"])
            case "/round":
                return RedirectResponse("/round")
            case "/drip":
                return StreamingResponse(drip())
            case "/large":
                return Response(b"\0" * 20_000)
            case "/unsaid":
                return StreamingResponse(pieces(20))
            case "/zipped":
                return Response(b"\x1f\x8b" + b"\0" * 50, headers={"content-encoding": "gzip"})
        return Response(status_code=404)


async def drip() -> AsyncIterator[bytes]:
    for byte in PICTURE:
        yield bytes([byte])
        await asyncio.sleep(0.05)


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"\0" * 1000


class Names:
    """Looks names up: each call gives the next answer of its name, the last one again and again."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(answer) for name, answer in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
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
    running_site.asked.clear()
    return running_site


@pytest.fixture
def options() -> ServingOptions:
    return ServingOptions(
        engine="torch",
        name="demo", model="m@1", model_uri="unused", artifacts="unused", image_urls=True, max_image_bytes=10_000,
        image_url_timeout_s=1, image_url_hosts=["images.test", PUBLIC],
    )  # fmt: skip


@pytest.fixture
def names() -> Names:
    return Names(images_test=[[PUBLIC]], deep_images_test=[[PUBLIC]])


@pytest.fixture
def at(site: Site) -> Callable[[str, str], str]:
    """The URL of a path at a name that leads to the site."""
    port = site.url.rpartition(":")[2]
    return lambda host, path: f"http://{host}:{port}{path}"


async def refused(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(BadImage) as bad:
        await fetcher.fetch(url)
    return str(bad.value)


class TestFetched:
    async def test_a_picture(self, options: ServingOptions, names: Names, at: Any, site: Site) -> None:
        fetcher = Fetcher(options, names, refuses)

        assert await fetcher.fetch(at("images.test", "/picture.png")) == PICTURE
        assert await fetcher.fetch(at("deep.images.test", "/picture.png")) == PICTURE
        assert site.headers.keys() <= {"host", "accept", "accept-encoding", "user-agent"}

    async def test_through_a_redirect(self, options: ServingOptions, names: Names, at: Any, site: Site) -> None:
        target = at("deep.images.test", "/picture.png")

        assert await Fetcher(options, names, refuses).fetch(at("images.test", f"/to?url={target}")) == PICTURE
        assert names.asked == ["images.test", "deep.images.test"]

    async def test_bytes_are_taken_as_they_are(self, options: ServingOptions, names: Names, at: Any) -> None:
        """Nothing is unpacked: it could grow without end."""
        data = await Fetcher(options, names, refuses).fetch(at("images.test", "/zipped"))

        assert data == b"\x1f\x8b" + b"\0" * 50


class TestRefused:
    @pytest.mark.parametrize(
        "host",
        ["127.0.0.2", "10.0.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "[::1]", "[fe80::1]", "[::ffff:10.0.0.1]",
         "[fd00::1]", "100.64.0.1", "[64:ff9b::a00:1]"],
    )  # fmt: skip
    async def test_private_addresses(self, options: ServingOptions, names: Names, host: str) -> None:
        open_to_all = options.model_copy(update={"image_url_hosts": []})

        assert "private network" in await refused(Fetcher(open_to_all, names, refuses), f"http://{host}/picture.png")
        assert names.asked == []

    @pytest.mark.parametrize("host", ["2130706434", "0x7f000002", "127.2", "localhost"])
    async def test_other_ways_to_write_them(self, options: ServingOptions, host: str) -> None:
        """As the system's own look-up reads them."""
        open_to_all = options.model_copy(update={"image_url_hosts": []})

        why = await refused(Fetcher(open_to_all, is_forbidden=is_private), f"http://{host}/picture.png")

        assert "private network" in why or "no address" in why or "not http" in why

    async def test_a_name_with_one_private_address_among_public_ones(self, options: ServingOptions, at: Any, site: Site) -> None:
        names = Names(images_test=[[PUBLIC, "10.0.0.1"]])

        assert "private network" in await refused(Fetcher(options, names, refuses), at("images.test", "/picture.png"))
        assert site.asked == []

    async def test_a_name_that_changes_its_address_is_looked_up_once(self, options: ServingOptions, at: Any, site: Site) -> None:
        """The connection goes to the address that was checked, though the name means another one by now."""
        names = Names(images_test=[[PUBLIC], ["127.0.0.2"]])

        assert await Fetcher(options, names, refuses).fetch(at("images.test", "/picture.png")) == PICTURE
        assert names.asked == ["images.test"]

    async def test_the_same_name_at_the_next_hop_is_checked_again(self, options: ServingOptions, at: Any, site: Site) -> None:
        names = Names(images_test=[[PUBLIC], ["127.0.0.2"]])

        why = await refused(Fetcher(options, names, refuses), at("images.test", "/to?url=/picture.png"))

        assert "private network" in why
        assert site.asked == ["images.test/to"]

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
    async def test_redirects_out_of_the_rules(
        self, options: ServingOptions, names: Names, at: Any, site: Site, target: str, why: str
    ) -> None:
        assert why in await refused(Fetcher(options, names, refuses), at("images.test", f"/to?url={target}"))
        assert site.asked == ["images.test/to"]

    async def test_a_redirect_to_a_private_address_where_all_hosts_are_allowed(
        self, options: ServingOptions, names: Names, at: Any, site: Site
    ) -> None:
        names.answers["evil.test"] = [["10.0.0.1"]]
        allowed = options.model_copy(update={"image_url_hosts": ["images.test", "evil.test"]})

        why = await refused(Fetcher(allowed, names, refuses), at("images.test", "/to?url=http://evil.test/x"))

        assert "evil.test, in a private network" in why

    async def test_redirects_without_end(self, options: ServingOptions, names: Names, at: Any, site: Site) -> None:
        assert "more than 3 times" in await refused(Fetcher(options, names, refuses), at("images.test", "/round"))
        assert len(site.asked) == 4

    @pytest.mark.parametrize(
        ("path", "why"),
        [("/drip", "within 1 s"), ("/large", "at least 20,000"), ("/unsaid", "more than the 10,000"), ("/gone", "answered 404")],
    )
    async def test_what_a_server_may_do(self, options: ServingOptions, names: Names, at: Any, path: str, why: str) -> None:
        assert why in await refused(Fetcher(options, names, refuses), at("images.test", path))

    async def test_names_that_are_not_on_the_list(self, options: ServingOptions, names: Names) -> None:
        for host in ("example.com", "images.test.example.com", "notimages.test"):
            assert "fetches from images.test" in await refused(Fetcher(options, names, refuses), f"http://{host}/x.png")
        assert names.asked == []

    async def test_odd_ports_need_a_list(self, options: ServingOptions, names: Names) -> None:
        open_to_all = options.model_copy(update={"image_url_hosts": []})

        assert "at port 22" in await refused(Fetcher(open_to_all, names, refuses), "http://images.test:22/x.png")

    async def test_a_name_without_an_address_and_nothing_listening(self, options: ServingOptions, names: Names) -> None:
        fetcher = Fetcher(options.model_copy(update={"image_url_hosts": ["images.test", "nowhere.test"]}), names, refuses)

        assert "has no address" in await refused(fetcher, "http://nowhere.test/x.png")
        assert "could not be fetched" in await refused(fetcher, "http://images.test:9/x.png")


class TestAnswers:
    """Over HTTP, in a student that fetches and in one that does not."""

    def test_urls_are_off_unless_allowed(self, tmp_path: Any, site: Site, names: Names, at: Any) -> None:
        folder = write_student(tmp_path / "models/student/1")
        options = ServingOptions(
            engine="torch", name="demo", model="m@1", model_uri=str(folder), artifacts=str(tmp_path), max_image_bytes=10_000
        )  # fmt: skip
        body = {"input": [at("images.test", "/picture.png"), base64.b64encode(PICTURE).decode()], "modality": "image"}
        with serving(options) as served:
            off = httpx.post(f"{served.endpoint}/embeddings", json=body, trust_env=False)
            service = served.replica.models.own.inference
            assert service._fetcher is None
            allowed = options.model_copy(update={"image_urls": True, "image_url_hosts": ["images.test"]})
            service._fetcher = Fetcher(allowed, names, refuses)
            on = httpx.post(f"{served.endpoint}/embeddings", json=body, trust_env=False)
            body["input"][0] = at("images.test", "/large")
            bad = httpx.post(f"{served.endpoint}/embeddings", json=body, trust_env=False)

        assert (off.status_code, off.json()["errors"][0]["pointer"]) == (422, "/input/0")
        assert "does not fetch URLs" in off.json()["errors"][0]["message"]
        first, second = (item["embedding"] for item in on.json()["data"])
        assert first == pytest.approx(second, abs=1e-6)
        assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (422, "/input/0")
        assert "scale the image down" in bad.json()["errors"][0]["message"]
