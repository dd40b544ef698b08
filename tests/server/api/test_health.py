"""Liveness, readiness, request ids and the background loops."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tinyclip.schemas import Scope
from tinyclip_server.api import openapi, readiness
from tinyclip_server.orchestration.installation import bind

from tests.server.events import Worker
from tests.server.guarded import bearer, token
from tests.server.service import Service, Start, eventually


@pytest.fixture(autouse=True)
def fresh_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the dependencies for each request."""
    monkeypatch.setattr("tinyclip_server.api.health.READY_SECONDS", 0.0)


async def test_a_process_is_live_without_ray(service: Service) -> None:
    service.ray.unavailable = True

    assert (await service.http.get("/livez")).json() == {"status": "ok"}


async def test_it_is_ready_with_database_and_ray(service: Service) -> None:
    parts = {"database": "ok", "scheduler": "ok", "artifacts": "ok", "ray": "ok"}
    assert (await service.http.get("/readyz")).json() == {"status": "ready", **parts}
    assert list((service.artifacts / ".probe").iterdir()) == []


async def test_it_is_not_ready_before_it_has_reached_ray(service: Service) -> None:
    service.ray.unavailable = True

    response = await service.http.get("/readyz")

    assert (response.status_code, response.json()["detail"]) == (503, "not ready: ray cannot be reached")
    assert "retry-after" in response.headers


async def test_it_is_degraded_when_ray_becomes_unavailable(service: Service) -> None:
    await service.http.get("/readyz")
    service.ray.unavailable = True

    response = await service.http.get("/readyz")

    assert (response.status_code, response.json()["status"], response.json()["ray"]) == (200, "degraded", "cannot be reached")
    assert 'tinyclip_dependency_up{dependency="ray"} 0.0' in (await service.http.get("/metrics")).text


async def test_artifacts_that_cannot_be_written_are_named(service: Service) -> None:
    service.artifacts.mkdir(exist_ok=True)
    (service.artifacts / ".probe").write_text("a file where a folder should be")

    response = await service.http.get("/readyz")

    assert response.status_code == 503
    assert "artifacts cannot be written" in response.json()["detail"]


async def test_a_store_of_another_database_is_named(start: Start, service: Service, tmp_path: Path) -> None:
    await bind(service.app.state.services)
    second = await start(artifacts=str(tmp_path / "second"))

    response = await second.http.get("/readyz")

    assert response.status_code == 503
    assert f"artifacts are not its own: this database belongs to the artifacts store at {service.artifacts}" in response.text


async def test_a_database_of_another_revision_is_named(service: Service) -> None:
    async with service.app.state.services.db.write() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    response = await service.http.get("/readyz")

    assert response.status_code == 503
    assert "database does not fit: the database is at revision 9999" in response.json()["detail"]


async def test_it_is_not_ready_when_the_scheduler_hangs(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    round = service.app.state.services.metrics.timed("jobs", service.app.state.scheduler.tick)
    await round()
    assert (await service.http.get("/readyz")).status_code == 200

    monkeypatch.setattr(readiness, "HANGING_SECONDS", -1.0)

    assert "scheduler has ended no round" in (await service.http.get("/readyz")).json()["detail"]


async def test_a_check_times_out(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(service.ray, "ready", lambda: asyncio.sleep(60))

    assert "ray did not answer within 0.05 s" in (await service.http.get("/readyz")).json()["detail"]


async def test_an_unavailable_database_is_503_and_retryable(start: Start, tmp_path: Path) -> None:
    service = await start()
    (tmp_path / "tinyclip.db").unlink()
    await service.app.state.services.db.engine.dispose()
    (tmp_path / "tinyclip.db").mkdir()

    response = await service.http.get("/v1/jobs")

    assert (response.status_code, response.json()["retryable"]) == (503, True)
    assert "database cannot be reached" in (await service.http.get("/readyz")).json()["detail"]
    scraped = await service.http.get("/metrics")
    assert scraped.status_code == 200
    assert 'tinyclip_dependency_up{dependency="database"} 0.0' in scraped.text


async def test_every_response_has_a_request_id_that_of_the_caller_if_it_is_well_formed(service: Service) -> None:
    assert (await service.http.get("/livez")).headers["x-request-id"].startswith("req_")
    kept = await service.http.get("/livez", headers={"X-Request-Id": "mine-1"})
    assert kept.headers["x-request-id"] == "mine-1"
    malformed = await service.http.get("/livez", headers={"X-Request-Id": "a b\tc"})
    assert malformed.headers["x-request-id"].startswith("req_")


async def test_the_openapi_document_names_every_route(service: Service) -> None:
    paths = (await service.http.get("/openapi.json")).json()["paths"]

    assert {"/v1/jobs", "/v1/jobs/{job_id}/events", "/v1/models", "/v1/compare", "/readyz"} <= set(paths)


async def test_the_openapi_document_is_made_once_in_a_thread(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    made_in: list[threading.Thread] = []

    def make(*, make: Callable[..., dict[str, Any]] = openapi.get_openapi, **options: Any) -> dict[str, Any]:
        made_in.append(threading.current_thread())
        return make(**options)

    monkeypatch.setattr(openapi, "get_openapi", make)

    answers = await asyncio.gather(*(service.http.get("/openapi.json") for _ in range(3)))

    assert len({answer.content for answer in answers}) == 1
    assert answers[0].headers["content-type"] == "application/json"
    assert len(made_in) == 1
    assert made_in[0] is not threading.main_thread()


async def test_the_scheduler_runs_in_the_background(start: Start) -> None:
    service = await start(schedule=True, tick_seconds=0.02)
    worker = await _started(service)
    worker.start()
    worker.succeed()

    await _until_state(service, worker.job, "succeeded")
    assert (await service.job(worker.job))["finished_at"] is not None


async def _started(service: Service) -> Worker:
    job = await service.submit()
    await eventually(lambda: _submitted(service))
    return Worker(service.artifacts, await service.job(job["id"]))


async def _submitted(service: Service) -> bool:
    return bool(service.ray.submissions)


async def _until_state(service: Service, job_id: str, state: str) -> None:
    async def there() -> bool:
        return (await service.job(job_id))["state"] == state

    await eventually(there)


async def test_requests_share_a_check_of_the_dependencies(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    check = service.ray.ready

    async def ready() -> bool:
        checked.append(1)
        return await check()

    monkeypatch.setattr("tinyclip_server.api.health.READY_SECONDS", 60.0)
    monkeypatch.setattr(service.ray, "ready", ready)

    responses = await asyncio.gather(*(service.http.get("/readyz") for _ in range(20)))

    assert [response.status_code for response in responses] == [200] * 20
    assert len(checked) == 1


async def test_without_a_token_the_report_has_no_details(start: Start) -> None:
    service = await start(auth="tokens")
    headers = bearer(await token(service, Scope.METRICS))
    service.ray.unavailable = True

    bare, detailed = await service.http.get("/readyz"), await service.http.get("/readyz", headers=headers)

    assert "ray" not in bare.json()["detail"]
    assert detailed.json()["detail"] == "not ready: ray cannot be reached"
