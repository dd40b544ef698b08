"""The fault-injecting proxy itself, in front of a real S3 server."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import s3fs

from tests.fault_proxy import Fault, FaultProxy, fault_proxy, s3_proxy
from tests.s3 import BUCKET, bucket_files, s3_server

SIGNATURE = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
"""The server checks that there is one, and no more."""
Proxied = tuple[FaultProxy, dict[str, str], s3fs.S3FileSystem]


@pytest.fixture(scope="module")
def running() -> Iterator[Proxied]:
    with s3_server() as environment, s3_proxy(environment) as (proxy, proxied):
        yield proxy, proxied, bucket_files(environment)


@pytest.fixture
def proxied(running: Proxied) -> Iterator[Proxied]:
    yield running
    running[0].set()
    running[0].refuse(False)


def fetch(url: str, method: str = "GET", data: bytes | None = None, timeout: float = 10.0) -> tuple[int, bytes]:
    """Send one request, without retries. Raises OSError if there is no complete response."""
    headers = {"Content-Type": "application/octet-stream", "Authorization": SIGNATURE}
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_everything_is_forwarded_unless_faults_are_set(proxied: Proxied) -> None:
    _, environment, direct = proxied
    through = bucket_files(environment)

    through.pipe_file(f"{BUCKET}/folder/a file+1.bin", b"x" * 3_000_000)

    assert direct.cat_file(f"{BUCKET}/folder/a file+1.bin") == b"x" * 3_000_000
    assert through.find(f"{BUCKET}/folder") == [f"{BUCKET}/folder/a file+1.bin"]
    assert through.cat_file(f"{BUCKET}/folder/a file+1.bin", start=5, end=9) == b"xxxx"
    assert through.info(f"{BUCKET}/folder/a file+1.bin")["size"] == 3_000_000


def test_a_dropped_response_follows_the_commit(proxied: Proxied) -> None:
    proxy, _, direct = proxied
    proxy.set(Fault("drop", methods=("PUT",), path="dropped", numbers=(1,)))
    proxy.forget_requests()

    with pytest.raises(ConnectionError):
        fetch(f"{proxy.url}/{BUCKET}/dropped", "PUT", b"one")

    assert direct.cat_file(f"{BUCKET}/dropped") == b"one"
    assert fetch(f"{proxy.url}/{BUCKET}/dropped", "PUT", b"two")[0] == 200, "only the first one is dropped"
    assert [(found["status"], found["faults"]) for found in proxy.requests()] == [(None, ["drop"]), (200, [])]


def test_an_error_without_forwarding_commits_nothing(proxied: Proxied) -> None:
    proxy, _, direct = proxied
    proxy.set(Fault("error", forward=False, path="refused"))

    status, body = fetch(f"{proxy.url}/{BUCKET}/refused", "PUT", b"one")

    assert status == 503
    assert b"SlowDown" in body
    assert not direct.exists(f"{BUCKET}/refused")


def test_a_truncated_response_ends_in_the_middle(proxied: Proxied) -> None:
    proxy, _, direct = proxied
    direct.pipe_file(f"{BUCKET}/long", b"x" * 1000)
    proxy.set(Fault("truncate", methods=("GET",), path="long"))

    with pytest.raises(http.client.IncompleteRead, match="500 bytes read"):
        fetch(f"{proxy.url}/{BUCKET}/long")


def test_hanging_and_delayed_requests_do_not_stop_others(proxied: Proxied) -> None:
    proxy, _, direct = proxied
    direct.pipe_file(f"{BUCKET}/here", b"1")
    proxy.set(Fault("hang", path="hanging"), Fault("delay", path="here", seconds=0.2, header="Range"))

    with ThreadPoolExecutor() as threads:
        hanging = threads.submit(fetch, f"{proxy.url}/{BUCKET}/hanging", timeout=0.5)
        answered = fetch(f"{proxy.url}/{BUCKET}/here")
        still_hanging = not hanging.done()

    assert answered == (200, b"1")
    assert still_hanging
    assert isinstance(hanging.exception(), TimeoutError)


def test_a_partition_refuses_connections_until_it_ends(proxied: Proxied) -> None:
    proxy, _, direct = proxied
    direct.pipe_file(f"{BUCKET}/here", b"1")
    proxy.refuse()

    with pytest.raises(urllib.error.URLError, match="refused"):
        fetch(f"{proxy.url}/{BUCKET}/here")

    proxy.refuse(False)
    assert fetch(f"{proxy.url}/{BUCKET}/here") == (200, b"1")


def test_seeded_faults_hit_the_same_requests(proxied: Proxied) -> None:
    proxy, _, _ = proxied
    fault = Fault("error", forward=False, path="seeded", probability=0.5, seed=7)

    outcomes = []
    for _ in range(2):
        proxy.set(fault)
        outcomes.append([fetch(f"{proxy.url}/{BUCKET}/seeded/{number}")[0] for number in range(12)])

    assert outcomes[0] == outcomes[1]
    assert {503, 404} == set(outcomes[0])


def test_a_dead_upstream_looks_like_a_lost_connection() -> None:
    with fault_proxy("http://127.0.0.1:9") as proxy, pytest.raises(ConnectionError):
        fetch(f"{proxy.url}/anything")
