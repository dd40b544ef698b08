"""Hostile requests of up to 16 MiB to a real server process: none blocks its event loop or fills its memory."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from tinyclip.bounded_json import INLINE_BYTES
from tinyclip.schemas import Scope
from tinyclip_server.database.engine import Database
from tinyclip_server.models import service as models
from tinyclip_server.settings import Settings
from tinyclip_server.tokens.shell import create_token

from tests.load_probe import LARGEST_ANSWER, MIB, ProbedProcess, expect_small_load, filled, listed
from tests.server.documents import STUDENT, model_document, spec
from tests.server.guarded import bearer
from tests.server.service import FAKE_PLANNER

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory through /proc"),
    pytest.mark.timeout(300),
]
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Shape:
    """A hostile request; `body` returns a body of about a size."""

    body: Callable[[int], bytes]
    path: str = "/v1/jobs"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def stages(unit: str) -> Callable[[int], bytes]:
    return listed('{"name":"a","stages":[', unit, "]}")


def task(start: str, unit: str, end: str) -> Callable[[int], bytes]:
    """Return a function that makes a job with a task, whose last field has as many units as fit."""
    before = json.dumps(spec())[:-1] + ', "evaluation": {"tasks": [{"name": "a", "kind": "zero_shot", "shards": "/a.tar", '
    return listed(before + start, unit, end + "}]}}")


def tasks(field: str) -> Callable[[int], bytes]:
    """Return a function that makes a job with 200 tasks, each with this field."""
    unit = f'{{"name":"a","kind":"zero_shot","shards":"/a.tar",{field}}}'
    return lambda size: (json.dumps(spec())[:-1] + f', "evaluation": {{"tasks": [{",".join([unit] * 200)}]}}}}').encode()


def searched(start: str, unit: str, end: str) -> Callable[[int], bytes]:
    """Return a function that makes a search, whose last field has as many units as fit."""
    return listed(f'{{"spec":{json.dumps(spec(evaluation=EVALUATION))},{start}', unit, end + "}")


def get(path: str, **headers: str) -> Shape:
    return Shape(lambda size: b"", path, "GET", {name.replace("_", "-"): value for name, value in headers.items()})


GALLERY = "/v1/indexes/gallery"
ITEMS = f"{GALLERY}/items"
SEARCHES = "/v1/searches"
EVALUATION = {"tasks": [{"name": "a", "kind": "retrieval", "shards": "/data/a.tar"}]}
CLONE = "/v1/jobs/job_x/clone"
VECTOR = '{"id":"{#}","vector":[' + ",".join(["0.12345"] * 1000) + "]}"
BODIES: dict[str, Shape] = {
    "invalid stages": Shape(stages("0")),
    "stages of unknown fields": Shape(stages('{"a":1,"b":2}')),
    "valid stages": Shape(stages('{"name":"a","student":{"preset":"x"},"train":{"steps":1}}')),
    "nulls": Shape(listed('{"name":"a","teachers":[', "null", "]}")),
    "deep lists": Shape(filled("", "[", "")),
    "deep objects": Shape(filled("", '{"a":', "")),
    "empty lists": Shape(stages("[]")),
    "empty objects": Shape(stages("{}")),
    "one huge key": Shape(filled('{"', "k", '":1}')),
    "huge keys": Shape(listed("{", '"{#}' + "k" * 100_000 + '":1', "}")),
    "unknown fields": Shape(listed("{", '"field{#}":1', "}")),
    "duplicate keys": Shape(listed("{", '"name":1', "}")),
    "one long string": Shape(filled('{"name":"', "a", '"}')),
    "long strings": Shape(listed('{"teachers":[', '"' + "a" * 100_000 + '"', "]}")),
    "labels": Shape(listed('{"name":"a","labels":{', '"k{#}":"v"', "}}")),
    "digits": Shape(filled('{"seed":', "9", "}")),
    "integers of 4,299 digits": Shape(stages("9" * 4299)),
    "floats of many digits": Shape(stages("0." + "1" * 4299)),
    "NaN": Shape(stages("NaN")),
    "lone surrogates": Shape(stages('"\\ud800"')),
    "escapes": Shape(filled('{"name":"', "\\u0041", '"}')),
    "NUL characters": Shape(filled('{"name":"', "\\u0000", '"}')),
    "class names": Shape(task('"classes": [', '"c{#}"', "]")),
    "invalid class names": Shape(task('"classes": [', "0", "]")),
    "templates": Shape(task('"templates": [', '"' + "{}" * 400 + '"', "]")),
    "shards": Shape(listed(json.dumps(spec())[:-1] + ', "data": {"train": {"shards": [', '"/data/{0..99999}.tar"', "]}}}")),
    "brackets": Shape(lambda size: json.dumps(spec() | {"data": {"train": {"shards": ["[" * 9_999] * 9}}}).encode()),
    "open braces of an index": Shape(
        lambda size: json.dumps({"model": "emoji@1", "source": {"shards": ["/data/{" + "," * 9_990] * 9}}).encode(),
        "/v1/indexes/braces", "PUT",
    ),
    "invalid templates of all tasks": Shape(tasks(f'"templates":[{",".join("0" * 999)}]')),
    "invalid conditions of all tasks": Shape(tasks('"where":{' + ",".join(f'"k{number}":[]' for number in range(99)) + "}")),
    "conditions": Shape(task('"where": {', '"k{#}":1', "}")),
    "text that is not JSON": Shape(filled("", "{\0", "")),
    "compressed": Shape(filled('{"name":"', "a", '"}'), headers={"Content-Encoding": "gzip"}),
    "a form": Shape(filled("", "--x\r\n\r\n", ""), headers={"Content-Type": "multipart/form-data; boundary=x"}),
    "changes": Shape(listed('{"set":{', '"a.b{#}":1', "}}"), CLONE),
    "a change with a long path": Shape(filled('{"set":{"', "a.", 'a":1}}'), CLONE),
    "a body that is not used": Shape(listed("[", "1.5", "]"), "/v1/jobs/job_x/cancel", headers={"Idempotency-Key": "a"}),
    "floats and an idempotency key": Shape(stages("0.123"), headers={"Idempotency-Key": "b"}),
    "vectors": Shape(listed('{"items":[', VECTOR, "]}"), ITEMS),
    "vectors and an idempotency key": Shape(listed('{"items":[', VECTOR, "]}"), ITEMS, headers={"Idempotency-Key": "c"}),
    "items": Shape(listed('{"items":[', '{"id":"{#}","text":"a"}', "]}"), ITEMS),
    "spaces between items": Shape(filled('{"items":[{"id":"a","text":"a"}', " ", ',{"id":"b","text":"b"}]}'), ITEMS),
    "invalid items": Shape(listed('{"items":[', "0", "]}"), ITEMS),
    "items of integers": Shape(listed('{"items":[{"id":"a","vector":[', "9" * 4299, "]}]}"), ITEMS),
    "metadata": Shape(listed('{"items":[{"id":"a","text":"a","metadata":{', '"k{#}":[{}]', "}}]}"), ITEMS),
    "metadata of numbers": Shape(listed('{"items":[{"id":"a","text":"a","metadata":{', '"k{#}":{#}', "}}]}"), ITEMS),
    "small metadata": Shape(listed('{"items":[', '{"id":"{#}","text":"a","metadata":{"a":[[[]]],"b":{"c":{}}}}', "]}"), ITEMS),
    "an image in base64": Shape(filled('{"items":[{"id":"a","image":"', "QUJD", '"}]}'), ITEMS),
    "spaces in base64": Shape(filled('{"items":[{"id":"a","image":"', "AB ", '"}]}'), ITEMS),
    "deployments": Shape(listed('{"model":"a@1","models":[', '"a"', "]}"), "/v1/deployments/a", "PUT"),
    "conditions of a data set": Shape(
        listed('{"source":{"shards":"/a.tar","where":{', '"k{#}":{"min":1}', "}}}"), "/v1/datasets/a", "PUT"
    ),
    "open braces of a data set": Shape(
        lambda size: json.dumps({"source": {"shards": ["/data/{" + "," * 9_990] * 9}}).encode(), "/v1/datasets/a", "PUT"
    ),
    "teachers of a reinforcement": Shape(
        listed('{"teachers":[', '{"model":"a","weight":0}', "]}"), "/v1/datasets/a/versions/1/reinforcements"
    ),
    "evaluation tasks": Shape(listed('{"model":"a","tasks":[', '{"kind":1}', "]}"), "/v1/evaluations"),
    "varied fields": Shape(searched('"vary":{', '"optimizer.lr{#}":[1]', "}"), SEARCHES),
    "values of a varied field": Shape(searched('"vary":{"optimizer.lr":[', '"a"', "]}"), SEARCHES),
    "invalid values of varied fields": Shape(searched('"vary":{', '"a{#}":{"min":"a"}', "}"), SEARCHES),
    "constraints": Shape(searched('"constraints":[', '{"task":1}', "]"), SEARCHES),
    "a large spec that is varied": Shape(
        lambda size: json.dumps(
            {"spec": spec(labels={}, stages=spec()["stages"][:1] * 99, evaluation=EVALUATION), "vary": {"seed": ["a"] * 999}}
        ).encode(),
        SEARCHES,
    ),
    "scopes": Shape(listed('{"name":"a","scopes":[', '"x"', "]}"), "/v1/tokens"),
    "formats": Shape(listed('{"formats":[', '"x"', "]}"), "/v1/models/a/versions/1/exports"),
    "an import by name": Shape(filled('{"source":"', "a", '"}'), "/v1/models/import"),
    "an import of unknown fields": Shape(listed("{", '"field{#}":1', "}"), "/v1/models/import"),
}
SMALL: dict[str, Shape] = {
    "unknown fields like known ones": Shape(lambda size: listed("{", '"stages{}":1', "}")(INLINE_BYTES)),
    "invalid stages": Shape(lambda size: stages("0")(INLINE_BYTES)),
    "a long query": get("/v1/jobs?" + "label=a:b&" * 5_000),
    "many parameters": get("/v1/jobs?" + "state=x&" * 7_000),
    "a long page token": get("/v1/jobs?page_token=" + "W1tb" * 15_000),
    "a long path": get("/v1/jobs/" + "x" * 60_000),
    "a long path without a route": get("/" + "x" * 60_000),
    "ETags": get("/v1/jobs/job_x", If_None_Match='"a",' * 15_000),
    "a long token": get("/v1/jobs", Authorization="Bearer tc_" + "a" * 60_000),
    "compared models": get("/v1/compare?models=" + "a@1," * 15_000),
    "metric names": get("/v1/jobs/job_x/metrics?names=" + "a," * 30_000),
    "a long idempotency key": Shape(lambda size: json.dumps(spec()).encode(), headers={"Idempotency-Key": "k" * 60_000}),
}
"""Requests without a large body."""


@dataclass(frozen=True)
class Server:
    process: ProbedProcess
    url: str
    secret: str

    def expect_small_cost(
        self, shape: Shape, headers: dict[str, str], size: int = 0, *, largest_answer: int = LARGEST_ANSWER
    ) -> httpx.Response:
        """Send a request with a body of about this size, and return the answer. Raises AssertionError."""
        body = shape.body(size)

        def send() -> httpx.Response:
            with httpx.Client(trust_env=False, timeout=120) as http:
                return http.request(shape.method, self.url + shape.path, content=body, headers=JSON | headers | shape.headers)

        return expect_small_load(self.process, send, largest_answer)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with tokens, as production has it, and a token of all scopes."""
    folder = tmp_path_factory.mktemp("bounded")
    environment = {
        **os.environ, "TINYCLIP_AUTH": "tokens", "TINYCLIP_REQUESTS_PER_MINUTE": "100000", "TINYCLIP_DATA_ROOTS": '["/data"]',
        "TINYCLIP_PLANNER_COMMAND": json.dumps(FAKE_PLANNER), "FAKE_PLANNER_STUDENT": json.dumps(STUDENT),
    }
    process = ProbedProcess("tests.server.probed_server", [str(folder / "data")], folder / "log", environment)
    try:
        server = Server(process, process.line().strip(), asyncio.run(_furnished(folder / "data")))
        index = httpx.put(f"{server.url}{GALLERY}", json={"model": "emoji@1"}, headers=bearer(server.secret), trust_env=False)
        assert index.status_code == 202, index.text
        yield server
    finally:
        process.stop()


async def _furnished(data_dir: Path) -> str:
    """Register a model whose embeddings have 1000 numbers, and return a token."""
    settings, scopes = Settings(data_dir=data_dir), [Scope.READ, Scope.WRITE, Scope.ADMIN]
    database = Database(settings.async_database_url)
    async with database.write() as session:
        number = await models.reserve(session, "default", "emoji")
        document = model_document("emoji", number, embed_dim=1000)
        await models.register(session, document, name="emoji", version=number, job_id=None)
    await database.close()
    return (await create_token(settings, name="a", project="default", scopes=list(scopes), days=1)).token


@pytest.mark.parametrize("mib", [16, 4, 1])
@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_costs_little(server: Server, name: str, mib: int) -> None:
    answer = server.expect_small_cost(BODIES[name], bearer(server.secret), mib * MIB - 20_000)

    assert answer.status_code != 500


@pytest.mark.parametrize("name", SMALL)
def test_a_hostile_request_costs_little(server: Server, name: str) -> None:
    answer = server.expect_small_cost(SMALL[name], bearer(server.secret))

    assert answer.status_code != 500


@pytest.mark.parametrize("name", ["invalid stages", "one long string", "deep lists"])
def test_without_a_token_it_costs_little_too(server: Server, name: str) -> None:
    answer = server.expect_small_cost(BODIES[name], {}, 16 * MIB)

    assert answer.status_code == 401


def test_class_lists_of_imagenet_21k_are_accepted(server: Server) -> None:
    names = [f"n{i:08}, a synonym, another synonym" for i in range(21_841)]
    task = {"kind": "zero_shot", "shards": "/data/a.tar", "classes": names, "templates": ["a photo of a {}."] * 80}
    tasks = [{"name": f"task-{i}", **task} for i in range(4)]
    document = json.dumps(spec(evaluation={"tasks": tasks}))

    answer = server.expect_small_cost(Shape(lambda size: document.encode()), bearer(server.secret), largest_answer=8 * MIB)

    assert answer.status_code == 201


def test_a_thousand_vectors_of_a_thousand_numbers_are_accepted(server: Server) -> None:
    vectors = listed('{"items":[', VECTOR, "]}")(7 * MIB)

    answer = server.expect_small_cost(Shape(lambda size: vectors, ITEMS), bearer(server.secret))

    assert answer.status_code == 202
