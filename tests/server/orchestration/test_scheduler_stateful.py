"""A property test of the scheduler: at most one attempt runs, the history has no gaps, every job ends, and ends once.

Hypothesis draws histories of submits, requests, deaths, lost and repeated answers, drivers that hang, and jumps of the clock,
over the real scheduler of three servers, one of which has another Ray cluster, and a real SQLite file. Each call to Ray or to the
store is a point at which a server may be held, suspended, killed or superseded. At the end of a history all failures end; then
every job must end, and nothing may be left behind.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import JobSpec, JobState, Plan, StudentSummary
from tinyclip_server.database.tables import JobRow
from tinyclip_server.jobs import service
from tinyclip_server.jobs.lifecycle import ON_CLUSTER
from tinyclip_server.jobs.specs import PlannedJob
from tinyclip_server.problems import Conflict, NotFound

from tests.server.documents import STUDENT, spec
from tests.server.scheduler_world import Clock, Server, World, world
from tests.server.scripted_cluster import Driver, HeldCall

__all__ = ["world"]

EXAMPLES, MORE_EXAMPLES = 50, 2000
STEPS = 12
PROJECT = "default"
MAX_ROUNDS = 60
WORLD: list[World] = []
"""The world of this process; a state machine takes no arguments."""
ENDED: list[int] = []
"""The number of jobs of every history that ended well."""

PLACES = (0, 0, 1)
"""The cluster of each server."""
LIMIT_SECONDS = 300

which = st.integers(0, 3)
any_server = st.integers(0, len(PLACES) - 1)


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = WORLD[0]
        self.world.clear()
        self.servers = [Server(self.world, place) for place in PLACES]
        self.jobs: list[str] = []
        self.deleted: set[str] = set()
        self.ended: dict[str, str] = {}
        self.outcomes: dict[tuple[str, int], str] = {}
        self.late: list[Callable[[], Any]] = []

    @initialize(max_attempts=st.integers(1, 2), begun=st.sampled_from(["queued", "submitted", "running"]))
    def a_job(self, max_attempts: int, begun: str) -> None:
        """Start with a job that has left the queue, where most failures happen."""
        self.submit(max_attempts)
        if begun != "queued":
            self.a_whole_round(0, cleans=False)
        if begun == "running":
            self.world.drivers[0].act("train")
            self.a_whole_round(0, cleans=False)

    # What users do.

    @rule(max_attempts=st.integers(1, 3))
    def submit(self, max_attempts: int) -> None:
        if len(self.jobs) < 3:
            timeouts = {"progress_seconds": LIMIT_SECONDS}
            given = spec(stages=[spec()["stages"][0]], max_attempts=max_attempts, timeouts=timeouts)
            parsed = JobSpec.model_validate(given)
            planned = PlannedJob(parsed, _plan(parsed), dataset=None, submitted=given)
            self.jobs.append(self._in_database(lambda session: service.create(session, PROJECT, planned)).id)

    @rule(which=which, what=st.sampled_from(["cancel", "pause", "resume", "retry", "delete"]))
    def ask(self, which: int, what: str) -> None:
        job_id = self.jobs[which % len(self.jobs)]

        async def change(session: AsyncSession) -> str | None:
            if what == "retry":
                return (await service.retry(session, PROJECT, job_id)).id
            job = await service.get(session, PROJECT, job_id, lock=True)
            if what == "delete":
                await service.delete(session, job)
                self.deleted.add(job_id)
            else:
                {"cancel": service.cancel, "pause": service.pause, "resume": service.resume}[what](session, job)
            return None

        with contextlib.suppress(Conflict, NotFound):
            fresh = self._in_database(change)
            self.jobs += [fresh] if fresh else []

    # What servers do, and what is done to them.

    @rule(server=any_server, cleans=st.booleans())
    def a_whole_round(self, server: int, cleans: bool) -> None:
        self.world.run(self.servers[server].finish(cleans=cleans))

    @rule(server=any_server, cleans=st.booleans())
    def a_round_begins(self, server: int, cleans: bool) -> None:
        self.world.run(self.servers[server].begin(cleans=cleans))

    @rule(server=any_server, which=which, how=st.sampled_from(["delivered", "delivered", "lost", "unanswered", "late"]))
    def a_call(self, server: int, which: int, how: str) -> None:
        held = self.servers[server].gate.held
        if not held:
            return
        call = held[which % len(held)]
        if how == "delivered":
            call.deliver()
        else:
            call.fail(arrived=how == "unanswered")
        if how == "late" and call.what.startswith(("ray submit", "ray stop")):
            self.late.append(call.effect)
        self.world.run(asyncio.sleep(0))

    @rule()
    def a_late_call_arrives(self) -> None:
        if self.late:
            self._arrive(self.late.pop(0))

    @rule(server=any_server, arrives=st.booleans())
    def a_server_dies(self, server: int, arrives: bool) -> None:
        """Kill a server between two calls, or between a call's effect and its answer."""
        for call in self.servers[server].gate.held if arrives else ():
            self._arrive(call.effect)
        self.world.run(self.servers[server].die())
        self.servers[server] = Server(self.world, PLACES[server])

    @rule(seconds=st.sampled_from([5, 5, 21, 21, 31, 31, 61, 61, -45, LIMIT_SECONDS, 700]))
    def the_clock_jumps(self, seconds: int) -> None:
        Clock.at += timedelta(seconds=seconds)

    @rule(server=any_server, calls=st.integers(0, 3), what=st.sampled_from(["train", "fail", "finish", "die"]))
    def drivers_act_between_two_calls_of_a_round(self, server: int, calls: int, what: str) -> None:
        turned = self.servers[server]
        self.world.run(turned.begin(cleans=False))
        for _ in range(calls):
            self._deliver(turned.gate.held[:1])
        for driver in self.world.running_drivers():
            driver.act(what)
        self.world.run(turned.finish(cleans=False))

    @rule(
        server=any_server, calls=st.integers(0, 3), what=st.sampled_from(["train", "fail", "finish", "die"]),
        arrives=st.booleans(),
    )
    def a_server_is_held_up_and_the_other_carries_on(self, server: int, calls: int, what: str, arrives: bool) -> None:
        held_up, other = self.servers[server], self.servers[(server + 1) % len(PLACES)]
        self.world.run(held_up.begin(cleans=False))
        for _ in range(calls):
            self._deliver(held_up.gate.held[:1])
        for _ in range(2):
            Clock.at += timedelta(seconds=61)
            self.world.run(other.finish(cleans=False))
            for driver in self.world.running_drivers():
                driver.act(what)
        self._deliver(held_up.gate.held if arrives else [])
        Clock.at += timedelta(seconds=61)
        followed = self._on_cluster()
        for each in [*self.servers, *self.servers]:  # what they were at arrives first; only those of its cluster follow a job
            self.world.run(each.finish(cleans=False))
        assert not self.world.stale_controls & followed & self._on_cluster()  # what came too late is put right

    @rule(server=any_server, calls=st.integers(0, 3), what=st.sampled_from(["train", "fail", "finish", "die", "hang"]))
    def a_server_is_suspended_and_continues(self, server: int, calls: int, what: str) -> None:
        """What it has sent by then arrives; after its lease it must send nothing more."""
        suspended = self.servers[server]
        if suspended.busy:  # perhaps with a round that cleans up at its end, from rows that it reads then
            return
        self.world.run(suspended.begin(cleans=False))
        for _ in range(calls):
            self._deliver(suspended.gate.held[:1])
        if not suspended.busy:
            return
        for other in [other for other in self.servers if other is not suspended]:
            Clock.at += timedelta(seconds=61)
            self.world.run(other.finish(cleans=False))
            for driver in self.world.running_drivers():
                driver.act(what)
        suspended.gate.changes.clear()
        self.world.run(suspended.finish(cleans=False))
        assert suspended.gate.changes == []
        Clock.at += timedelta(seconds=61)
        for other in self.servers:  # what arrived late is put right by a server of the job's cluster
            self.world.run(other.finish(cleans=False))

    @rule(place=st.integers(0, 1))
    def a_service_stops_with_its_cluster(self, place: int) -> None:
        """The jobs of the other cluster are not touched."""
        elsewhere = self._attempts_of(1 - place)
        self.world.clusters[place].lose_head(with_drivers=True)
        self.late.clear()
        for number, server in enumerate(self.servers):
            if server.place == place:
                self.world.run(server.die())
                self.servers[number] = Server(self.world, place)
        settling = next(server for server in self.servers if server.place == place)
        settling.gate.open = True
        self.world.run(settling.scheduler.interrupt_all())
        settling.gate.open = False
        assert self._attempts_of(1 - place) == elsewhere

    # What the cluster does.

    @rule(
        which=which,
        what=st.sampled_from(
            ["train", "train", "evaluate", "malformed", "fail", "break", "die", "vanish", "hang", "finish", "finish"]
        ),
    )
    def a_driver_acts(self, which: int, what: str) -> None:
        living = self.world.running_drivers()
        if living:
            driver: Driver = living[which % len(living)]
            driver.act(what)

    @rule(place=st.integers(0, 1), with_drivers=st.booleans())
    def a_head_dies(self, place: int, with_drivers: bool) -> None:
        self.world.clusters[place].lose_head(with_drivers=with_drivers)

    @rule(place=st.integers(0, 1))
    def a_head_is_cut_off_or_comes_back(self, place: int) -> None:
        self.world.clusters[place].up = not self.world.clusters[place].up

    # What always holds.

    @invariant()
    def an_end_is_the_end(self) -> None:
        states = dict(self.world.database.execute("SELECT id, state FROM jobs"))
        for job, state in self.ended.items():
            assert states.get(job, state) == state
        self.ended |= {job: state for job, state in states.items() if JobState(state).terminal}
        outcomes = {(job, number): outcome for job, number, outcome in self._attempts() if outcome}
        for attempt, outcome in self.outcomes.items():
            assert outcomes.get(attempt, outcome) == outcome
        self.outcomes |= outcomes

    @invariant()
    def history_has_no_gaps(self) -> None:
        query = "SELECT last_event, count(*), min(seq), max(seq) FROM jobs JOIN events ON job_id = id GROUP BY id"
        for last, count, lowest, highest in self.world.database.execute(query):
            assert (lowest, highest, count) == (1, last, last)

    @invariant()
    def what_a_driver_wrote_is_applied_exactly_once(self) -> None:
        twice = "SELECT 1 FROM events WHERE type = 'progress' GROUP BY job_id, attempt, data HAVING count(*) > 1"
        assert self.world.database.execute(twice).fetchall() == []
        silent = "SELECT job_id, attempt FROM events WHERE type = 'attempt.lost' AND message LIKE '%without a final event%'"
        drivers = self.world.drivers
        for lost in self.world.database.execute(silent):
            assert [driver.reported_outcome for driver in drivers if (driver.job, driver.attempt) == lost] != [True]

    @invariant()
    def at_most_one_attempt_runs(self) -> None:
        living = [(job, number) for job, number, outcome in self._attempts() if outcome is None]
        newest = dict(self.world.database.execute("SELECT id, attempt FROM jobs"))
        assert sorted(living) == sorted((job, newest[job]) for job in self._on_cluster())
        unfenced = [driver.job for driver in self.world.running_drivers() if driver.unfenced()]
        assert all(unfenced.count(job) == 1 for job in unfenced if job not in self.world.stale_controls)

    @invariant()
    def a_success_is_one_version(self) -> None:
        of_jobs = "SELECT job_id, version FROM model_versions WHERE job_id IN (SELECT id FROM jobs)"
        succeeded = "SELECT id, model_version FROM jobs WHERE state = 'succeeded'"
        assert sorted(self.world.database.execute(of_jobs)) == sorted(self.world.database.execute(succeeded))

    @invariant()
    def no_transaction_is_held_over_a_call(self) -> None:
        assert self.world.db.engine.pool.checkedout() == 0  # type: ignore[attr-defined]

    def teardown(self) -> None:
        """End all failures: every job must end, and nothing may be left behind."""
        for cluster in self.world.clusters:
            cluster.up = True
        for effect in self.late:
            self._arrive(effect)
        for server in self.servers:  # what they were at arrives first
            if server.busy:
                self.world.run(server.finish())
        rounds = 0
        while self._unsettled() and rounds < MAX_ROUNDS:
            self._a_good_round(self.servers[rounds % len(PLACES)])
            rounds += 1
        assert self._unsettled() == []
        self.an_end_is_the_end()
        self.history_has_no_gaps()
        self.at_most_one_attempt_runs()
        self.a_success_is_one_version()
        for server in self.servers:
            self.world.run(server.die())
        ENDED.append(len(self.jobs))

    def _a_good_round(self, server: Server) -> None:
        Clock.at += timedelta(seconds=35)
        for (job_id,) in self.world.database.execute("SELECT id FROM jobs WHERE state = 'paused'").fetchall():
            self._in_database(lambda session, job_id=job_id: self._resume(session, job_id))
        for driver in self.world.running_drivers():
            driver.act("train")
            if driver.alive:
                driver.act("finish")
        self.world.run(server.finish())

    def _unsettled(self) -> list[Any]:
        database = self.world.database
        return [
            *database.execute("SELECT id, state FROM jobs WHERE finished_at IS NULL OR deleted_at IS NOT NULL"),
            *database.execute("SELECT ray_submission_id, 'not released' FROM attempts WHERE released_at IS NULL"),
            *[(driver.submission_id, "still runs") for driver in self.world.running_drivers() if not driver.out_of_reach],
            *[(path, "is left") for path in self.world.files if path.split("/")[1] in self.deleted],
        ]

    async def _resume(self, session: AsyncSession, job_id: str) -> None:
        service.resume(session, await session.get_one(JobRow, job_id))

    def _in_database(self, change: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        async def in_one_transaction() -> Any:
            async with self.world.db.write() as session:
                return await change(session)

        return self.world.run(in_one_transaction())

    def _attempts(self) -> Iterator[tuple[str, int, str | None]]:
        return self.world.database.execute("SELECT job_id, number, outcome FROM attempts")

    def _attempts_of(self, place: int) -> list[Any]:
        query = "SELECT job_id, number, outcome FROM attempts WHERE cluster = ? ORDER BY job_id, number"
        return self.world.database.execute(query, (f"http://ray-{place}",)).fetchall()

    def _deliver(self, calls: Sequence[HeldCall]) -> None:
        for call in list(calls):
            call.deliver()
        self.world.run(asyncio.sleep(0))

    def _on_cluster(self) -> set[str]:
        return {job for job, state in self.world.database.execute("SELECT id, state FROM jobs") if state in ON_CLUSTER}

    def _arrive(self, effect: Callable[[], Any]) -> None:
        try:
            effect()
        except Exception:
            assert not all(cluster.up for cluster in self.world.clusters)


def _plan(parsed: JobSpec) -> Plan:
    student = StudentSummary.model_validate(STUDENT)
    stage = {"index": 0, "name": "s", "inherit": "manual", "steps": 10, "samples": 1, "student": student, "device_hours": 0.1}
    whole = {"steps": 10, "samples_per_epoch": 1, "device": "cpu", "device_hours": 0.1}
    return Plan.model_validate({"spec": parsed, "teacher": None, "stages": [stage], **whole})


@pytest.mark.parametrize(
    "examples",
    [
        EXAMPLES,
        # some two minutes of a slow core that has nothing else to do
        pytest.param(MORE_EXAMPLES, marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_any_history_ends_well(world: World, examples: int) -> None:
    options = settings(
        max_examples=examples, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck),
        database=None, phases=[Phase.generate, Phase.shrink],
    )
    WORLD[:] = [world]
    ENDED.clear()
    run_state_machine_as_test(Histories, settings=options)

    assert len(ENDED) >= examples
    assert sum(ENDED) > examples  # jobs: most histories have several
