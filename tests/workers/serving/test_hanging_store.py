"""Deployments whose artifacts store accepts requests and never answers: queries that need nothing new from it do not wait."""

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from tinyclip.artifacts import remote
from tinyclip.artifacts.documents import TokenDigests
from tinyclip.artifacts.paths import TOKEN_DIGESTS
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import LabelSet
from tinyclip_workers.retrieval.commits import commit
from tinyclip_workers.retrieval.generations import Generation
from tinyclip_workers.retrieval.segment_writer import new_segment
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.replica import access as access_module
from tinyclip_workers.serving.replica import indexes as indexes_module
from tinyclip_workers.serving.replica import label_sets as label_sets_module
from tinyclip_workers.serving.replica import store_calls
from tinyclip_workers.serving.replica.access import Access
from tinyclip_workers.serving.replica.indexes import Indexes
from tinyclip_workers.serving.replica.label_sets import LabelSets

from tests.fault_proxy import Fault, FaultProxy
from tests.s3 import BUCKET
from tests.workers.serving.test_access import GOOD, digests, rejection, request
from tests.workers.student_server import serving_options

HANGING = Fault("hang", forward=False)
WAIT = 0.1
"""Patched in for how long a query waits for the store."""
SLACK = 0.4
"""Seconds that a busy machine may need besides."""


@pytest.fixture
def root(faulty_s3: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(store_calls, "CALL_SECONDS", 1.0)
    for module in (access_module, indexes_module, label_sets_module):
        monkeypatch.setattr(module, "REFRESH_SECONDS", 0.05)
    for module in (indexes_module, label_sets_module):
        monkeypatch.setattr(module, "REFRESH_WAIT_SECONDS", WAIT)
    root = f"s3://{BUCKET}/{tmp_path.name}"
    assert not ArtifactsStore(root).exists("x")  # its client exists now, which takes longer than the time limits here
    return root


async def longest(call: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Repeat a call for some time; return the longest duration of one."""
    durations, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic()
        await call()
        durations.append(time.monotonic() - started)
        await asyncio.sleep(0.02)
    return max(durations)


class TestTokens:
    @pytest.fixture
    def options(self, root: str, tmp_path: Path) -> ServingOptions:
        ArtifactsStore(root).write_bytes(TOKEN_DIGESTS, TokenDigests(tokens=digests()).model_dump_json().encode())
        return serving_options(tmp_path, project="vision", auth="tokens").model_copy(update={"artifacts": root})

    async def test_queries_never_wait(self, options: ServingOptions, faulty_s3: FaultProxy) -> None:
        access = Access(options)
        faulty_s3.set(HANGING)

        assert await longest(lambda: access.check(request(GOOD)), 1.5) < SLACK

    async def test_the_list_is_valid_for_five_minutes_and_read_again_after_the_outage(
        self, options: ServingOptions, faulty_s3: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = time.monotonic()
        access = Access(options)
        faulty_s3.set(HANGING)
        after = time.monotonic()
        with monkeypatch.context() as later:
            later.setattr(access_module, "monotonic", lambda: before + 299)
            await access.check(request(GOOD))
            later.setattr(access_module, "monotonic", lambda: after + 302)
            assert await rejection(access, request(GOOD)) == (503, "tokens_unavailable")

        faulty_s3.set()
        ArtifactsStore(options.artifacts).write_bytes(TOKEN_DIGESTS, TokenDigests(tokens={}).model_dump_json().encode())

        async def is_revoked() -> bool:
            try:
                await access.check(request(GOOD))
            except ProblemError as problem:
                return problem.problem.code == "token_unknown"
            return False

        assert await eventually(is_revoked), "the thread reads the list without any query"

    async def test_the_thread_ends_with_its_replica(self, options: ServingOptions) -> None:
        access = Access(options)
        before = {thread for thread in threading.enumerate() if thread.name == "tokens"}

        del access
        gc.collect()

        async def has_ended() -> bool:
            return any(not thread.is_alive() for thread in before)

        assert await eventually(has_ended)


class TestLabelSets:
    @pytest.fixture
    def label_sets(self, root: str) -> LabelSets:
        return LabelSets("demo", store_calls.open_limited_store(root))

    async def test_a_known_one_is_used_and_another_is_refused_in_limited_time(
        self, label_sets: LabelSets, faulty_s3: FaultProxy
    ) -> None:
        await label_sets.put("known", ["cat"], [])
        faulty_s3.set(HANGING)

        assert await longest(lambda: label_sets.get("known"), 1.0) < WAIT + SLACK

        for call in (label_sets.get("other"), label_sets.put("new", ["dog"], []), label_sets.names()):
            started = time.monotonic()
            with pytest.raises(ProblemError) as refused:
                await call
            assert (refused.value.problem.status, refused.value.problem.code) == (503, "store_unavailable")
            assert time.monotonic() - started < 1.0 + SLACK

    async def test_queries_without_the_store_have_their_threads(self, label_sets: LabelSets, faulty_s3: FaultProxy) -> None:
        faulty_s3.set(HANGING)
        waiting = [asyncio.create_task(label_sets.get(f"other-{number}")) for number in range(50)]
        await asyncio.sleep(0.05)

        await asyncio.to_thread(len, "a query that decodes an image")

        assert not any(query.done() for query in waiting)
        assert {type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)} == {ProblemError}

    async def test_a_change_is_seen_after_the_outage(self, label_sets: LabelSets, root: str, faulty_s3: FaultProxy) -> None:
        await label_sets.put("known", ["cat"], [])
        faulty_s3.set(HANGING)
        await asyncio.sleep(0.06)
        assert (await label_sets.get("known")).labels == ["cat"]
        faulty_s3.set(Fault("delay", methods=("GET",), seconds=2 * WAIT))  # slow, but it answers
        await LabelSets("demo", ArtifactsStore(root)).put("known", ["dog"], [])

        async def is_new() -> bool:
            return (await label_sets.get("known")) == LabelSet(name="known", labels=["dog"], templates=[])

        assert await eventually(is_new)


class TestIndexes:
    @pytest.fixture
    def indexes(self, root: str) -> Indexes:
        store = ArtifactsStore(root)
        for name in ("known", "unknown"):
            with new_segment(store, name, 4) as writer:
                writer.add(np.eye(4, dtype=np.float32), [(str(number), {}) for number in range(4)])
                segment = writer.finish(graph=False)
            generation = Generation(
                name=name, number=1, nonce="1", build=1, model="m@1", embed_dim=4, count=4, kind="exact", segments=[segment]
            )
            assert commit(store, generation)
        return Indexes(root)

    async def test_an_open_one_answers_and_another_is_refused_in_limited_time(
        self, indexes: Indexes, faulty_s3: FaultProxy
    ) -> None:
        query = np.eye(4, dtype=np.float32)[2]
        await indexes.nearest("known", "m@1", query, 1)
        faulty_s3.set(HANGING)
        waiting = [asyncio.create_task(indexes.nearest("unknown", "m@1", query, 1)) for _ in range(50)]

        assert await longest(lambda: indexes.nearest("known", "m@1", query, 1), 1.0) < WAIT + SLACK

        _, found = await indexes.nearest("known", "m@1", query, 1)
        assert [hit.id for hit in found.hits] == ["2"]
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert {error.problem.code for error in errors if isinstance(error, ProblemError)} == {"store_unavailable"}
        assert all(isinstance(error, ProblemError) for error in errors)

    async def test_a_new_generation_is_opened_after_the_outage(self, indexes: Indexes, root: str, faulty_s3: FaultProxy) -> None:
        reader = await indexes.open("known", "m@1")
        faulty_s3.set(HANGING)
        await asyncio.sleep(0.06)
        assert (await indexes.open("known", "m@1")).generation.number == 1
        faulty_s3.set()
        assert commit(ArtifactsStore(root), reader.generation.model_copy(update={"number": 2, "nonce": "2"}))

        async def is_new() -> bool:
            return (await indexes.open("known", "m@1")).generation.number == 2

        assert await eventually(is_new)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.05)
    return True
