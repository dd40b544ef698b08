"""What is tried again, how often, and what comes of it."""

import email.utils
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
import tinyclip
from tinyclip import Client, Retries
from tinyclip._http.retries import Patience, retry_after

from tests.client.documents import JOB, PROBLEM, job, problem

Handler = Callable[[httpx.Request], httpx.Response]
AT_ONCE = Retries(attempts=4, first_wait=0.0)


def client_of(handler: Handler, retries: Retries = AT_ONCE) -> Client:
    return Client("http://server", retries=retries, transport=httpx.MockTransport(handler))


def answers(*given: httpx.Response | Exception) -> tuple[Handler, list[httpx.Request]]:
    """A server that gives these answers in turn, and what it was asked."""
    asked: list[httpx.Request] = []
    turn: Iterator[httpx.Response | Exception] = iter(given)

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        now = next(turn)
        if isinstance(now, Exception):
            raise now
        return now

    return handle, asked


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_passing_status_is_tried_again(status: int) -> None:
    handler, asked = answers(httpx.Response(status, json=problem(status, "busy")), httpx.Response(200, json=JOB))

    found = client_of(handler).jobs.get("job_1")

    assert found.id == "job_1"
    assert len(asked) == 2


def test_a_lost_connection_is_tried_again() -> None:
    handler, asked = answers(httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.Response(200, json=JOB))

    assert client_of(handler).jobs.get("job_1").id == "job_1"
    assert len(asked) == 3


def test_a_refusal_is_not_tried_again() -> None:
    handler, asked = answers(httpx.Response(422, json=PROBLEM))

    with pytest.raises(tinyclip.InvalidRequest) as refused:
        client_of(handler).jobs.submit({"name": "x"})

    assert refused.value.problem.errors[0].pointer == "/stages/0/student/image/layers"
    assert len(asked) == 1


def test_a_conflict_that_says_it_will_pass_is_tried_again() -> None:
    in_flight = problem(409, "the same request is still under way", retryable=True)
    handler, asked = answers(httpx.Response(409, json=in_flight), httpx.Response(201, json=JOB))

    assert client_of(handler).jobs.submit({"name": "x"}).id == "job_1"
    assert len(asked) == 2


def test_patience_ends() -> None:
    handler, asked = answers(*[httpx.ConnectError("refused") for _ in range(10)])

    with pytest.raises(tinyclip.CannotReachServer, match="cannot reach http://server: refused"):
        client_of(handler).jobs.get("job_1")

    assert len(asked) == 4


def test_no_wait_is_begun_that_would_end_too_late() -> None:
    handler, asked = answers(httpx.Response(503, json=problem(503, "later"), headers={"Retry-After": "3600"}))

    with pytest.raises(tinyclip.Unavailable) as refused:
        client_of(handler).jobs.get("job_1")

    assert refused.value.retry_after == 3600
    assert len(asked) == 1


def test_retry_after_is_waited_for() -> None:
    told: list[float] = []
    retries = Retries(attempts=3, first_wait=0.0, on_wait=lambda failure, seconds: told.append(seconds))
    busy = httpx.Response(429, json=problem(429, "busy"), headers={"Retry-After": "0"})
    slow = httpx.Response(429, json=problem(429, "busy"), headers={"Retry-After": "1"})
    handler, _ = answers(busy, slow, httpx.Response(200, json=JOB))
    before = time.monotonic()

    client_of(handler, retries).jobs.get("job_1")

    assert told == [0.0, 1.0]
    assert time.monotonic() - before >= 1.0


def test_retry_after_may_be_a_date() -> None:
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)

    assert retry_after(httpx.Response(503, headers={"Retry-After": in_a_minute})) == pytest.approx(60, abs=2)
    assert retry_after(httpx.Response(503, headers={"Retry-After": "soon"})) is None
    assert retry_after(httpx.Response(503)) is None


def test_waits_are_drawn_below_a_bound_that_doubles_up_to_a_limit() -> None:
    retries = Retries(first_wait=1.0, longest_wait=4.0)

    for failures, bound in ((1, 2.0), (2, 4.0), (9, 4.0)):
        drawn = [retries.delay(failures, None) for _ in range(200)]
        assert 0 <= min(drawn) < 0.2 * bound
        assert 0.8 * bound < max(drawn) <= bound


def test_patience_with_a_stream_is_renewed_by_what_arrives() -> None:
    patience = Patience(Retries(attempts=2, first_wait=0.0))
    lost = tinyclip.CannotReachServer("http://server", "lost")

    patience.delay(lost)
    patience.renew()
    patience.delay(lost)

    with pytest.raises(tinyclip.CannotReachServer):
        patience.delay(lost)


def test_a_submit_keeps_its_key_over_its_tries_and_draws_another_for_the_next() -> None:
    handler, asked = answers(
        httpx.ReadTimeout("was it made?"), httpx.Response(201, json=JOB), httpx.Response(201, json=job(id="job_2"))
    )
    client = client_of(handler)

    client.jobs.submit({"name": "x"})
    client.jobs.submit({"name": "x"})

    first, again, other = (request.headers["idempotency-key"] for request in asked)
    assert first == again != other


def test_a_key_of_ones_own_is_sent() -> None:
    handler, asked = answers(httpx.Response(201, json=JOB))

    client_of(handler).jobs.submit({"name": "x"}, idempotency_key="mine")

    assert asked[0].headers["idempotency-key"] == "mine"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, tinyclip.Unauthorized), (403, tinyclip.Unauthorized), (404, tinyclip.NotFound), (409, tinyclip.Conflict),
        (412, tinyclip.Conflict), (422, tinyclip.InvalidRequest), (429, tinyclip.Unavailable), (503, tinyclip.Unavailable),
        (500, tinyclip.ProblemError),
    ],
)
def test_an_error_has_the_class_of_its_status(status: int, kind: type[tinyclip.ProblemError]) -> None:
    handler, _ = answers(*[httpx.Response(status, json=problem(status, "because"))] * 4)

    with pytest.raises(kind, match="because") as refused:
        client_of(handler).jobs.get("job_1")

    assert type(refused.value) is kind


def test_an_answer_that_is_no_problem_document_is_still_an_error_that_says_where_from() -> None:
    handler, _ = answers(httpx.Response(404, text="<h1>nginx</h1>"))

    with pytest.raises(tinyclip.NotFound, match="http://server/v1/jobs/job_1 answered 404: <h1>nginx</h1>"):
        client_of(handler).jobs.get("job_1")


def test_a_success_that_is_not_ours_is_a_server_that_cannot_be_reached() -> None:
    handler, _ = answers(*[httpx.Response(200, text="<html>Log in to the hotel's wifi</html>")] * 4)

    with pytest.raises(tinyclip.CannotReachServer, match="not TinyCLIP's"):
        client_of(handler).jobs.get("job_1")
