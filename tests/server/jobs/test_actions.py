"""The actions of a job: what its state allows to the caller, which is what the service does not refuse."""

import pytest
from sqlalchemy import update
from tinyclip.schemas import Scope
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import JobRow

from tests.server.documents import spec
from tests.server.guarded import bearer, guarded, token
from tests.server.jobs.test_retry import failed, in_state, retry
from tests.server.service import Service

__all__ = ["guarded"]

ALWAYS = ["clone", "edit"]
STATES = ["queued", "starting", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"]


async def job_in(service: Service, state: str) -> str:
    if state == "failed":
        return (await failed(service)).job
    if state in ("pausing", "cancelled"):
        job_id = await in_state(service, "running" if state == "pausing" else "queued")
        await service.call("POST", f"/v1/jobs/{job_id}/{'pause' if state == 'pausing' else 'cancel'}", status=202)
        return job_id
    return await in_state(service, state)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("queued", ["cancel", "pause"]), ("starting", ["cancel", "pause"]), ("running", ["cancel", "pause"]),
        ("pausing", ["cancel"]), ("paused", ["cancel", "resume"]), ("cancelling", []), ("succeeded", ["delete"]),
        ("failed", ["delete", "retry"]), ("cancelled", ["delete", "retry"]),
    ],
)  # fmt: skip
async def test_each_state_has_its_actions(service: Service, state: str, expected: list[str]) -> None:
    job = await service.job(await job_in(service, state))

    assert (job["state"], sorted(job["actions"])) == (state, sorted(expected + ALWAYS))


@pytest.mark.parametrize("action", ["cancel", "pause", "resume", "retry", "delete"])
@pytest.mark.parametrize("state", STATES)
async def test_an_action_that_is_offered_changes_something_and_another_does_not(
    service: Service, state: str, action: str
) -> None:
    job_id = await job_in(service, state)
    before = await service.job(job_id)

    if action == "delete":
        response = await service.http.delete(f"/v1/jobs/{job_id}")
    else:
        response = await service.http.post(f"/v1/jobs/{job_id}/{action}")

    changes = response.is_success and (action == "delete" or response.json()["etag"] != before["etag"])
    assert changes == (action in before["actions"])


async def test_an_active_retry_needs_the_job_it_continues_from(service: Service) -> None:
    old = await failed(service)
    new = await retry(service, old.job)

    during = (await service.job(old.job))["actions"]
    again = (await service.call("POST", f"/v1/jobs/{new['id']}/cancel", status=202))["actions"]

    assert during == ALWAYS
    assert sorted(again) == sorted(["retry", "delete", *ALWAYS])
    assert sorted((await service.job(old.job))["actions"]) == sorted(["retry", "delete", *ALWAYS])


async def test_a_job_without_checkpoints_cannot_be_retried(service: Service) -> None:
    old = await failed(service)
    async with service.app.state.services.db.write() as session:
        await session.execute(update(JobRow).values(checkpoints_expired_at=now()))

    assert sorted((await service.job(old.job))["actions"]) == sorted(["delete", *ALWAYS])


async def test_a_token_that_cannot_write_has_none(guarded: Service) -> None:
    reader, writer = [bearer(await token(guarded, *scopes)) for scopes in ([Scope.READ], [Scope.WRITE, Scope.READ])]
    created = (await guarded.http.post("/v1/jobs", json=spec(), headers=writer)).json()
    one = f"/v1/jobs/{created['id']}"

    for path in (one, "/v1/jobs"):
        seen = [(await guarded.http.get(path, headers=headers)).json() for headers in (reader, writer)]
        jobs = [each["items"][0] if "items" in each else each for each in seen]
        assert [job["actions"] for job in jobs] == [[], created["actions"]]
    assert created["actions"] == ["cancel", "pause", "clone", "edit"]
