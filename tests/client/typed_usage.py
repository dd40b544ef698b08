"""Uses of the SDK whose types `test_types.py` has mypy check; never run."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, assert_type

import httpx
from tinyclip import AsyncClient, Call, Client, EmbeddedImages
from tinyclip.schemas import (
    Attempt,
    DatasetReport,
    DatasetVersion,
    Deployment,
    Event,
    Export,
    Job,
    JobSpecs,
    LabelSet,
    Me,
    NamedPoint,
    Page,
    Reinforcement,
    ReinforcementCost,
    ZeroShotResponse,
)

VERSION: Call[str] = Call("GET", "/v1/version", lambda response: response.text)


def blocking(client: Client) -> None:
    assert_type(client.jobs.submit({"name": "a"}, idempotency_key="key"), Job)
    assert_type(client.jobs.delete("job_1"), None)
    assert_type(client.jobs.page(page_size=3), Page[Job])
    assert_type(client.jobs.list(state="queued"), Iterator[Job])
    assert_type(client.jobs.attempts("job_1"), Iterator[Attempt])
    assert_type(client.jobs.spec("job_1"), JobSpecs)
    assert_type(client.jobs.events("job_1", after=3), Iterator[Event])
    assert_type(client.jobs.metric_points("job_1", names=["loss"], after=3), Iterator[NamedPoint])
    assert_type(client.jobs.wait("job_1", timeout=1.0), Job)
    assert_type(client.datasets.report("pairs@1"), DatasetReport)
    assert_type(client.datasets.versions("pairs"), Iterator[DatasetVersion])
    assert_type(client.datasets.estimate_reinforcement("pairs@1", {"teacher": {}}), ReinforcementCost)
    assert_type(client.datasets.wait_for_reinforcement("pairs@1", "reinf_1"), Reinforcement)
    assert_type(client.models.pull("shapes@1", "here"), Path)
    assert_type(client.models.wait_for_exports("shapes@1"), list[Export])
    assert_type(client.tokens.me(), Me)

    student = client.deployments.open("shapes")
    assert_type(student.zero_shot([b"image"], ["cat"]), ZeroShotResponse)
    assert_type(student.embed_images([b"image"]), list[list[float]])
    assert_type(student.embed_images([b"image"], on_error="skip"), EmbeddedImages)
    assert_type(student.label_sets.get("colours"), LabelSet)

    assert_type(client.send(VERSION), str)
    assert_type(client.send_with_response(VERSION), tuple[str, httpx.Response])


async def suspending(client: AsyncClient) -> None:
    assert_type(await client.jobs.submit({"name": "a"}, idempotency_key="key"), Job)
    assert_type(await client.jobs.page(page_size=3), Page[Job])
    assert_type(client.jobs.list(state="queued"), AsyncIterator[Job])
    assert_type([event async for event in client.jobs.events("job_1", after=3)], list[Event])
    assert_type(client.jobs.metric_points("job_1"), AsyncIterator[NamedPoint])
    assert_type(await client.deployments.wait("shapes", timeout=1.0), Deployment)
    assert_type(await client.models.pull("shapes@1", "here"), Path)

    student = await client.deployments.open("shapes")
    assert_type(await student.zero_shot([b"image"], ["cat"]), ZeroShotResponse)
    assert_type(await student.embed_images([b"image"], on_error="skip"), EmbeddedImages)
    assert_type(await student.label_sets.get("colours"), LabelSet)

    assert_type(await client.send(VERSION), str)


def misused(client: Client, async_client: AsyncClient) -> Any:
    client.jobs.submit(3)  # type: ignore[arg-type]
    client.jobs.get("job_1", name="shapes")  # type: ignore[call-arg]
    client.jobs.wait("job_1", timeout="long")  # type: ignore[arg-type]
    for _ in async_client.jobs.list():  # type: ignore[attr-defined]
        pass
    return async_client.jobs.get("job_1").state  # type: ignore[attr-defined]
