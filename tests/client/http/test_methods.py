"""Methods that are declared once for the sync and the async client."""

import inspect
import json

import httpx
import pytest
from tinyclip import AsyncClient, AsyncStudent, Call, Client, Student
from tinyclip._resources.deployments import AsyncDeployments, Deployments
from tinyclip.schemas import JobSpec

from tests.client.clients import Connect, Recorder, client_of
from tests.client.documents import JOB, job, page


@pytest.mark.parametrize(
    ("sync", "asynchronous"), [(Client, AsyncClient), (Deployments, AsyncDeployments), (Student, AsyncStudent)]
)
def test_methods_that_are_declared_for_each_client_have_the_same_arguments(sync: type, asynchronous: type) -> None:
    def public(kind: type) -> dict[str, list[str]]:
        functions = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(f).parameters) for name, f in functions if not name.startswith("_")}

    assert public(sync) == public(asynchronous)
    assert public(sync)


@pytest.mark.parametrize("name", ["submit", "wait", "watch", "list"])
def test_methods_that_are_declared_once_keep_their_signatures_and_docstrings(name: str) -> None:
    method, async_method = getattr(Client("http://server").jobs, name), getattr(AsyncClient("http://server").jobs, name)

    assert inspect.signature(method).parameters == inspect.signature(async_method).parameters
    assert "self" not in inspect.signature(method).parameters
    assert method.__doc__ == async_method.__doc__ == getattr(type(Client("http://server").jobs), name).__doc__
    assert method.__doc__


class TestSend:
    """A call that the SDK has no method for."""

    call = Call("GET", "/v1/version", lambda response: str(response.json()["version"]))

    @staticmethod
    def handle(request: httpx.Request) -> httpx.Response:
        assert (request.url.path, request.headers["authorization"]) == ("/v1/version", "Bearer secret")
        return httpx.Response(200, json={"version": "0.1.0"})

    def test_send(self, connect: Connect) -> None:
        assert connect(self.handle).send(self.call) == "0.1.0"

    def test_send_with_response(self, connect: Connect) -> None:
        value, response = connect(self.handle).send_with_response(self.call)

        assert (value, response.json()) == ("0.1.0", {"version": "0.1.0"})


def test_names_are_quoted_in_paths() -> None:
    server = Recorder(httpx.Response(200, json=JOB))

    client_of(server).jobs.get("../tokens?x=1")

    assert server.requests[0].url.raw_path == b"/v1/jobs/..%2Ftokens%3Fx%3D1"


def test_a_spec_is_sent_as_written_and_a_schema_without_its_defaults() -> None:
    server = Recorder(httpx.Response(201, json=JOB))

    written = {"name": "shapes", "learning_rate": 3}
    client_of(server).jobs.submit(written)
    client_of(server).jobs.submit(JobSpec.model_validate(JOB["spec"]))

    assert [json.loads(request.content) for request in server.requests] == [written, JOB["spec"]]


class TestPages:
    pages = {
        None: page(job(id="job_3"), job(id="job_2"), next_page_token="two"),
        "two": page(job(id="job_1")),
    }

    def handle(self, request: httpx.Request) -> httpx.Response:
        assert request.url.params["state"] == "succeeded"
        assert request.url.params.get_list("label") == ["team:search", "x:y"]
        return httpx.Response(200, json=self.pages[request.url.params.get("page_token")])

    def test_a_list_has_the_items_of_all_pages(self, connect: Connect) -> None:
        found = connect(self.handle).jobs.list(state="succeeded", labels={"team": "search", "x": "y"})

        assert [each.id for each in found] == ["job_3", "job_2", "job_1"]

    async def test_the_sync_client_works_in_an_event_loop_and_may_be_left_early(self) -> None:
        found = client_of(self.handle).jobs.list(state="succeeded", labels={"team": "search", "x": "y"})

        assert next(found).id == "job_3"
