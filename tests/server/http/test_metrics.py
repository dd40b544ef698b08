"""Metrics for Prometheus."""

import asyncio
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import JobRow
from tinyclip_server.http.metrics import Metrics
from tinyclip_server.orchestration.loops import repeat

from tests.server.documents import STEPS
from tests.server.events import progress
from tests.server.service import Service, Start, on_both_databases

Samples = dict[str, float]


async def scrape(service: Service) -> Samples:
    """Return every sample by its name and labels."""
    text = (await service.http.get("/metrics")).text
    return {
        sample.name + "{" + ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items())) + "}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class TestDatabase:
    @on_both_databases
    async def test_jobs_attempts_and_the_queue(self, service: Service) -> None:
        await service.running()
        await service.submit()

        samples = await scrape(service)

        states = {state: samples["tinyclip_jobs{state=" + state + "}"] for state in ("running", "queued", "failed")}
        assert states == {"running": 1, "queued": 1, "failed": 0}
        assert samples["tinyclip_attempts{outcome=running}"] == 1
        assert 0 < samples["tinyclip_queue_age_seconds{}"] < 60
        assert samples["tinyclip_model_versions{}"] == 0

    async def test_an_empty_queue_has_no_age(self, service: Service) -> None:
        assert (await scrape(service))["tinyclip_queue_age_seconds{}"] == 0

    async def test_only_running_jobs_have_their_own_series(self, service: Service) -> None:
        worker = await service.running(name="fast")
        event: dict[str, Any] = progress(STEPS // 2, 0)
        event["data"]["pairs_per_second"] = 123.0
        worker.emit(event)
        await service.tick()
        labels = "{job=" + worker.job + ",name=fast}"

        running = await scrape(service)
        worker.succeed()
        await service.tick()
        ended = await scrape(service)

        assert running["tinyclip_job_pairs_per_second" + labels] == 123
        assert 0 < running["tinyclip_job_progress_ratio" + labels] < 1
        assert [name for name in ended if worker.job in name] == []


class TestProcess:
    async def test_requests_by_route_template_and_status(self, service: Service) -> None:
        for path in ("/v1/jobs/job_a", "/v1/jobs/job_b", "/made/up/1", "/made/up/2", "/livez"):
            await service.http.get(path)

        samples = await scrape(service)

        def count(route: str, status: int) -> float:
            return samples["tinyclip_http_request_seconds_count{method=GET,route=" + route + f",status={status}" + "}"]

        assert count("/v1/jobs/{job_id}", 404) == 2
        assert count("unmatched", 404) == 2
        assert count("/livez", 200) == 1

    async def test_a_lost_lease_is_counted(self, service: Service) -> None:
        worker = await service.running()
        scheduler = service.app.state.scheduler
        (claim,) = await scheduler._claim()
        async with service.app.state.services.db.write() as session:
            job = await session.get_one(JobRow, worker.job)
            job.lease_owner, job.lease_token, job.lease_until = "another", job.lease_token + 1, now()
        worker.step(1)

        await scheduler._follow(claim)

        assert (await scrape(service))["tinyclip_lease_losses_total{}"] == 1

    async def test_rounds_failures_and_lag_of_a_loop(self) -> None:
        metrics, rounds, ending = Metrics(), 0, asyncio.Event()

        async def work() -> None:
            nonlocal rounds
            rounds += 1
            if rounds == 3:
                ending.set()  # the round that is under way ends, and no other begins
            if rounds > 1:
                raise ValueError("a failed round")

        timed, value = metrics.timed("jobs", work), metrics.registry.get_sample_value
        assert value("tinyclip_loop_round_seconds_count", {"loop": "jobs"}) == 0

        await repeat("jobs", timed, 0.001, ending)

        metrics.refresh_lag()
        assert value("tinyclip_loop_failures_total", {"loop": "jobs"}) == 2
        assert value("tinyclip_loop_round_seconds_count", {"loop": "jobs"}) == 3
        lag, age = value("tinyclip_loop_lag_seconds", {"loop": "jobs"}), metrics.seconds_since_round("jobs")
        assert lag is not None
        assert age is not None
        assert lag > age

    async def test_every_loop_of_a_server_is_measured(self, start: Start) -> None:
        service = await start(schedule=True)

        samples = set(await scrape(service))

        assert {"tinyclip_loop_lag_seconds{loop=jobs}", "tinyclip_loop_lag_seconds{loop=deployments}"} <= samples
