"""Which failures are retried, how often, and the error in the end."""

import email.utils

import httpx
import pytest
import tinyclip
from tinyclip import Client, Retries
from tinyclip._http.retries import Patience, retry_after

from tests.client.clients import Recorder, client_of
from tests.client.conftest import Clock
from tests.client.documents import JOB, PROBLEM, job, problem


def retrying(server: Recorder) -> Client:
    return client_of(server, Retries(attempts=4, first_wait=0.0))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_transient_status_is_retried(status: int) -> None:
    server = Recorder(httpx.Response(status, json=problem(status, "busy")), httpx.Response(200, json=JOB))

    assert retrying(server).jobs.get("job_1").id == "job_1"
    assert len(server.requests) == 2


def test_a_lost_connection_is_retried() -> None:
    server = Recorder(httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.Response(200, json=JOB))

    assert retrying(server).jobs.get("job_1").id == "job_1"
    assert len(server.requests) == 3


def test_an_invalid_request_is_not_retried() -> None:
    server = Recorder(httpx.Response(422, json=PROBLEM))

    with pytest.raises(tinyclip.InvalidRequest) as refused:
        retrying(server).jobs.submit({"name": "x"})

    assert refused.value.problem.errors[0].pointer == "/stages/0/student/image/layers"
    assert len(server.requests) == 1


def test_a_retryable_conflict_is_retried() -> None:
    in_flight = problem(409, "the same request is still under way", retryable=True)
    server = Recorder(httpx.Response(409, json=in_flight), httpx.Response(201, json=JOB))

    assert retrying(server).jobs.submit({"name": "x"}).id == "job_1"
    assert len(server.requests) == 2


def test_a_request_that_the_server_is_still_answering_is_repeated_until_it_has_the_answer(clock: Clock) -> None:
    in_flight = problem(409, "still being answered", code="idempotency_in_flight", retryable=True)
    conflict = httpx.Response(409, json=in_flight, headers={"Retry-After": "1"})
    server = Recorder(httpx.ReadTimeout("slow"), *[conflict] * 100, httpx.Response(201, json=JOB))

    assert client_of(server, Retries()).jobs.submit({"name": "x"}).id == "job_1"
    assert len({request.headers["Idempotency-Key"] for request in server.requests}) == 1
    assert len(server.requests) == 102


def test_a_request_that_is_never_answered_is_an_error_in_the_end(clock: Clock) -> None:
    in_flight = problem(409, "still being answered", code="idempotency_in_flight", retryable=True)
    server = Recorder(httpx.Response(409, json=in_flight, headers={"Retry-After": "1"}))

    with pytest.raises(tinyclip.Conflict):
        client_of(server, Retries(first_wait=0.0)).jobs.submit({"name": "x"})

    assert 290 <= sum(clock.sleeps) <= 300


def test_attempts_are_limited() -> None:
    server = Recorder(httpx.ConnectError("refused"))

    with pytest.raises(tinyclip.CannotReachServer, match="cannot reach http://server: refused"):
        retrying(server).jobs.get("job_1")

    assert len(server.requests) == 4


def test_no_wait_begins_that_would_end_too_late() -> None:
    server = Recorder(httpx.Response(503, json=problem(503, "later"), headers={"Retry-After": "3600"}))

    with pytest.raises(tinyclip.Unavailable) as refused:
        retrying(server).jobs.get("job_1")

    assert refused.value.retry_after == 3600
    assert len(server.requests) == 1


def test_retry_after_is_respected(clock: Clock) -> None:
    reported: list[float] = []
    retries = Retries(attempts=3, first_wait=0.0, on_wait=lambda failure, seconds: reported.append(seconds))
    busy, slow = (httpx.Response(429, json=problem(429, "busy"), headers={"Retry-After": after}) for after in "01")

    client_of(Recorder(busy, slow, httpx.Response(200, json=JOB)), retries).jobs.get("job_1")

    assert reported == clock.sleeps == [0.0, 1.0]


def test_retry_after_may_be_a_date(clock: Clock) -> None:
    in_a_minute = email.utils.formatdate(clock.wall_time() + 60, usegmt=True)

    assert retry_after(httpx.Response(503, headers={"Retry-After": in_a_minute})) == pytest.approx(60, abs=2)
    assert retry_after(httpx.Response(503, headers={"Retry-After": "soon"})) is None
    assert retry_after(httpx.Response(503)) is None


def test_waits_are_drawn_below_a_bound_that_doubles_up_to_a_limit() -> None:
    retries = Retries(first_wait=1.0, longest_wait=4.0)

    for failures, bound in ((1, 2.0), (2, 4.0), (9, 4.0)):
        drawn = [retries.delay(failures, None) for _ in range(200)]
        assert 0 <= min(drawn) < 0.2 * bound
        assert 0.8 * bound < max(drawn) <= bound


def test_the_budget_of_a_stream_is_renewed_by_what_arrives() -> None:
    patience = Patience(Retries(attempts=2, first_wait=0.0))
    lost = tinyclip.CannotReachServer("http://server", "lost")

    patience.delay(lost)
    patience.renew()
    patience.delay(lost)

    with pytest.raises(tinyclip.CannotReachServer):
        patience.delay(lost)


def test_a_submit_keeps_its_key_over_its_attempts_and_the_next_draws_another() -> None:
    server = Recorder(
        httpx.ReadTimeout("was it made?"), httpx.Response(201, json=JOB), httpx.Response(201, json=job(id="job_2"))
    )
    client = retrying(server)

    client.jobs.submit({"name": "x"})
    client.jobs.submit({"name": "x"})
    client.jobs.submit({"name": "x"}, idempotency_key="mine")

    first, again, other, given = (request.headers["idempotency-key"] for request in server.requests)
    assert first == again != other
    assert given == "mine"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, tinyclip.Unauthorized), (403, tinyclip.Unauthorized), (404, tinyclip.NotFound), (409, tinyclip.Conflict),
        (412, tinyclip.Conflict), (422, tinyclip.InvalidRequest), (429, tinyclip.Unavailable), (503, tinyclip.Unavailable),
        (500, tinyclip.ProblemError),
    ],
)
def test_an_error_has_the_class_of_its_status(status: int, kind: type[tinyclip.ProblemError]) -> None:
    with pytest.raises(kind, match="because") as refused:
        retrying(Recorder(httpx.Response(status, json=problem(status, "because")))).jobs.get("job_1")

    assert type(refused.value) is kind


def test_an_error_that_is_not_a_problem_document_names_its_origin() -> None:
    with pytest.raises(tinyclip.NotFound, match="http://server/v1/jobs/job_1 answered 404: <h1>nginx</h1>"):
        retrying(Recorder(httpx.Response(404, text="<h1>nginx</h1>"))).jobs.get("job_1")


def test_a_success_of_another_service_is_a_server_that_cannot_be_reached() -> None:
    with pytest.raises(tinyclip.CannotReachServer, match="not TinyCLIP's"):
        retrying(Recorder(httpx.Response(200, text="<html>Log in to the hotel's wifi</html>"))).jobs.get("job_1")
