"""Health and metrics."""

from pathlib import Path

from tests.server.conftest import Service, Start, eventually
from tests.server.fakes import Worker


async def test_a_living_process_says_so_even_without_ray(service: Service) -> None:
    service.ray.away = True

    assert (await service.http.get("/livez")).json() == {"status": "ok"}


async def test_it_is_ready_with_database_and_ray(service: Service) -> None:
    assert (await service.http.get("/readyz")).json() == {"status": "ready", "database": "ok", "ray": "ok"}


async def test_without_ray_it_is_not_ready_and_says_why(service: Service) -> None:
    service.ray.away = True

    answer = await service.http.get("/readyz")

    assert (answer.status_code, answer.json()["detail"]) == (503, "not ready: ray cannot be reached")
    assert "retry-after" in answer.headers


async def test_a_database_that_is_away_is_503_and_retryable(start: Start, tmp_path: Path) -> None:
    service = await start()
    (tmp_path / "tinyclip.db").unlink()
    await service.app.state.services.db.engine.dispose()
    (tmp_path / "tinyclip.db").mkdir()

    answer = await service.http.get("/v1/jobs")

    assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    assert "database" in (await service.http.get("/readyz")).json()["detail"]


async def test_metrics_count_jobs_by_state(service: Service) -> None:
    await service.running()
    await service.submit()

    text = (await service.http.get("/metrics")).text

    assert 'tinyclip_jobs{state="running"} 1.0' in text
    assert 'tinyclip_jobs{state="queued"} 1.0' in text
    assert 'tinyclip_jobs{state="failed"} 0.0' in text


async def test_every_answer_has_a_request_id_and_keeps_the_callers(service: Service) -> None:
    assert (await service.http.get("/livez")).headers["x-request-id"].startswith("req_")
    kept = await service.http.get("/livez", headers={"X-Request-Id": "mine-1"})
    assert kept.headers["x-request-id"] == "mine-1"
    odd = await service.http.get("/livez", headers={"X-Request-Id": "a b\tc"})
    assert odd.headers["x-request-id"].startswith("req_")


async def test_the_openapi_document_names_every_route(service: Service) -> None:
    paths = (await service.http.get("/openapi.json")).json()["paths"]

    assert {"/v1/jobs", "/v1/jobs/{job_id}/events", "/v1/models", "/v1/compare", "/readyz"} <= set(paths)


async def test_the_loop_runs_by_itself(start: Start) -> None:
    service = await start(schedule=True, tick_seconds=0.02)
    worker = await _started(service)
    worker.start()
    worker.succeed()

    await _until_state(service, worker.job, "succeeded")
    assert (await service.job(worker.job))["finished_at"] is not None


async def _started(service: Service) -> Worker:
    job = await service.submit()
    await _until_state(service, job["id"], "starting")
    return Worker(service.artifacts, await service.job(job["id"]))


async def _until_state(service: Service, job_id: str, state: str) -> None:
    async def there() -> bool:
        return (await service.job(job_id))["state"] == state

    await eventually(there)
