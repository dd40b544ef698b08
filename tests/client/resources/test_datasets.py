"""Data sets, their versions and reports."""

import json
from typing import Any

import httpx
import pytest
from tinyclip import InputError
from tinyclip._http.calls import Call
from tinyclip._resources import datasets as calls

from tests.client.clients import Connect
from tests.client.documents import JSON, dataset, dataset_report, dataset_version, page, reinforcement, sample


class Server:
    """A data set that is ready at the third request for it, and two pages of versions."""

    def __init__(self) -> None:
        self.bodies: list[JSON] = []
        self.gets = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            self.bodies.append(json.loads(request.content))
            return httpx.Response(202, json=dataset(state="registering"))
        if request.url.path.endswith("/report"):
            return httpx.Response(200, json=dataset_report())
        if request.url.path.endswith("/versions"):
            number = 1 if "page_token" in request.url.params else 2
            return httpx.Response(200, json=page(dataset_version(version=number), next_page_token="t" if number == 2 else None))
        self.gets += 1
        return httpx.Response(200, json=dataset(state="ready" if self.gets == 3 else "registering"))


def test_a_data_set_is_registered_and_waited_for(connect: Connect) -> None:
    server, seen = Server(), []
    client = connect(server)

    registering = client.datasets.put("pairs", ["/d/0.tar"], holdout=0.05, teacher={"model": "ViT-B-32", "pretrained": "openai"})
    ready = client.datasets.wait("pairs", on_progress=lambda each: seen.append(each.progress))

    assert (registering.state, ready.state, ready.latest, seen) == ("registering", "ready", 1, [0.5, 0.5])
    teacher = {"model": "ViT-B-32", "pretrained": "openai"}
    assert server.bodies == [{"source": {"shards": ["/d/0.tar"]}, "holdout": 0.05, "teacher": teacher}]


@pytest.mark.parametrize(
    ("source", "sent"),
    [
        ("/d/{0..3}.tar", {"shards": "/d/{0..3}.tar"}),
        ({"shards": "/d/*.tar", "caption_key": "json.text"}, {"shards": "/d/*.tar", "caption_key": "json.text"}),
    ],
)
def test_a_source_is_shards_or_a_description(connect: Connect, source: Any, sent: JSON) -> None:
    server = Server()

    connect(server).datasets.put("pairs", source)

    assert server.bodies == [{"source": sent}]


def test_reports_and_versions_are_read(connect: Connect) -> None:
    client = connect(Server())

    report, versions = client.datasets.report("pairs@best"), list(client.datasets.versions("pairs"))

    assert [finding.code for finding in report.findings][:2] == ["shifted_captions", "small_images"]
    assert [each.version for each in versions] == [2, 1]


def test_samples_are_listed_and_shown(connect: Connect) -> None:
    requests: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request.url.raw_path.decode())
        if request.url.path.endswith("/thumbnail"):
            return httpx.Response(200, content=b"jpeg")
        number = 1 if "page_token" in request.url.params else 0
        return httpx.Response(200, json=page(sample(number), next_page_token="t" if number == 0 else None))

    client = connect(handle)

    assert [each.number for each in client.datasets.samples("pairs@1", use="training")] == [0, 1]
    assert client.datasets.thumbnail("pairs@1", "a/0", number=0, size=64) == b"jpeg"
    assert requests[0] == "/v1/datasets/pairs/versions/1/samples?use=training"
    assert requests[2] == "/v1/datasets/pairs/versions/1/samples/a%2F0/thumbnail?number=0&size=64"


def test_a_version_is_reinforced_and_waited_for(connect: Connect) -> None:
    requests: list[httpx.Request] = []
    states = iter(["running", "succeeded"])

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.method == "POST":
            return httpx.Response(202, json=reinforcement(state="queued"))
        if request.url.path.endswith("reinforcements"):
            return httpx.Response(200, json=page(reinforcement()))
        return httpx.Response(200, json=reinforcement(state=next(states)))

    client = connect(handle)
    teacher = {"model": "ViT-B-32", "pretrained": "openai"}

    started = client.datasets.reinforce("pairs@best", teacher, augmentations=3)
    done = client.datasets.wait_for_reinforcement("pairs@1", started.id)

    assert (started.state, done.state, done.views) == ("queued", "succeeded", 5500)
    assert [each.id for each in client.datasets.reinforcements("pairs")] == ["reinf_1"]
    assert json.loads(requests[0].content) == {"teacher": teacher, "augmentations": 3}
    assert requests[0].url.path == "/v1/datasets/pairs/versions/best/reinforcements"
    assert requests[0].headers["idempotency-key"]


@pytest.mark.parametrize(
    ("call", "method", "path"),
    [
        (calls.version("pairs@best"), "GET", "/v1/datasets/pairs/versions/best"),
        (calls.version("pairs"), "GET", "/v1/datasets/pairs/versions/latest"),
        (calls.report("pairs@3"), "GET", "/v1/datasets/pairs/versions/3/report"),
        (calls.delete("pairs"), "DELETE", "/v1/datasets/pairs"),
        (calls.delete_version("pairs@3"), "DELETE", "/v1/datasets/pairs/versions/3"),
        (calls.put_alias("pairs", "best", 3), "PUT", "/v1/datasets/pairs/aliases/best"),
        (calls.remove_alias("pairs", "best"), "DELETE", "/v1/datasets/pairs/aliases/best"),
    ],
)
def test_paths(call: Call[Any], method: str, path: str) -> None:
    assert (call.method, call.path) == (method, path)


@pytest.mark.parametrize(
    ("call", "reference"), [(calls.version, "@3"), (calls.delete_version, "pairs"), (calls.delete_version, "pairs@")]
)
def test_an_incomplete_name_is_refused(call: Any, reference: str) -> None:
    with pytest.raises(InputError, match="name it as NAME@VERSION"):
        call(reference)
