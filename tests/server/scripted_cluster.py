"""A cluster in which everything that may go wrong goes wrong when the test says so.

`Gate` holds every call of a server to the outside until the test lets it through, loses it, or repeats it; `Cluster` is Ray with
its head and the drivers it started; a `Driver` behaves as the engine does, looking at the control file before it acts.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinyclip.artifacts.paths import attempt_driver, attempt_events, event_segment, job_control, job_spec
from tinyclip_server.backends.ray_gateway import RayJobStatus, RayUnavailable

from tests.server.documents import STUDENT, model_document

Files = dict[str, bytes]


@dataclass
class Held:
    """A call that has left the server and has not arrived."""

    what: str
    effect: Callable[[], Any]
    answer: asyncio.Future[Any]

    def deliver(self) -> None:
        """It arrives, and so does the answer."""
        try:
            self.answer.set_result(self.effect())
        except RayUnavailable as error:
            self.answer.set_exception(error)

    def fail(self, *, arrived: bool) -> None:
        """No answer comes back, whether or not the call arrived."""
        if arrived:
            with contextlib.suppress(RayUnavailable):
                self.effect()
        self.answer.set_exception(RayUnavailable("no answer") if self.what.startswith("ray") else OSError("no answer"))


class Gate:
    """Between one server and the outside."""

    def __init__(self) -> None:
        self.held: list[Held] = []
        self.open = False

    async def __call__(self, what: str, effect: Callable[[], Any]) -> Any:
        if self.open:
            return effect()
        held = Held(what, effect, asyncio.get_running_loop().create_future())
        self.held.append(held)
        try:
            return await held.answer
        finally:
            self.held = [other for other in self.held if other is not held]


class GatedStore:
    """The artifacts store as one server reaches it. What a read has found may be old by the time that it is used."""

    root = "memory"

    def __init__(self, files: Files, gate: Gate, on_control: Callable[[str, int], None]) -> None:
        self._files, self._gate, self._on_control = files, gate, on_control

    async def read_if_exists(self, path: str) -> bytes | None:
        found = self._files.get(path)
        if found is None:  # the last of several reads: what comes after it is the use of them all
            await self._gate(f"store read {path}", lambda: None)
        return found

    async def write_bytes(self, path: str, data: bytes) -> None:
        await self._gate(f"store write {path}", lambda: self._write(path, data))

    async def remove(self, path: str) -> None:
        await self._gate(f"store remove {path}", lambda: self._remove(path))

    def _write(self, path: str, data: bytes) -> None:
        self._files[path] = data
        if path.endswith("control.json"):
            self._on_control(path.split("/")[1], json.loads(data)["fence"])

    def _remove(self, path: str) -> None:
        for name in [name for name in self._files if name.startswith(f"{path}/")]:
            del self._files[name]


@dataclass
class Cluster:
    """Ray. Its records go with the head; drivers may outlive them."""

    files: Files
    up: bool = True
    records: dict[str, RayJobStatus] = field(default_factory=dict)
    drivers: list["Driver"] = field(default_factory=list)

    def submit(self, submission_id: str) -> None:
        self._answer()
        if submission_id not in self.records:
            self.records[submission_id] = RayJobStatus.RUNNING
            self.drivers.append(Driver(self, submission_id))

    def status(self, submission_id: str) -> RayJobStatus | None:
        self._answer()
        return self.records.get(submission_id)

    def stop(self, submission_id: str) -> None:
        self._answer()
        if submission_id in self.records:
            for driver in self.living():
                if driver.submission_id == submission_id:
                    driver.exit(RayJobStatus.STOPPED)

    def living(self) -> list["Driver"]:
        return [driver for driver in self.drivers if driver.alive]

    def lose_head(self, *, with_drivers: bool) -> None:
        for driver in self.living() if with_drivers else ():
            driver.alive = False
        self.records.clear()

    def _answer(self) -> None:
        if not self.up:
            raise RayUnavailable("connection refused")


class GatedRay:
    """The cluster as one server reaches it."""

    def __init__(self, cluster: Cluster, gate: Gate) -> None:
        self._cluster, self._gate = cluster, gate

    async def submit_job(self, submission_id: str, entrypoint: str, metadata: dict[str, str]) -> None:
        await self._gate(f"ray submit {submission_id}", lambda: self._cluster.submit(submission_id))

    async def job_status(self, submission_id: str) -> RayJobStatus | None:
        found: RayJobStatus | None = await self._gate("ray status", lambda: self._cluster.status(submission_id))
        return found

    async def stop_job(self, submission_id: str) -> None:
        await self._gate(f"ray stop {submission_id}", lambda: self._cluster.stop(submission_id))


class Driver:
    """One attempt's processes, told as one: they begin, look, train, end."""

    def __init__(self, cluster: Cluster, submission_id: str) -> None:
        self.submission_id = submission_id
        self.job, _, attempt = submission_id.removeprefix("tc-").rpartition("-a")
        self.attempt = int(attempt)
        self.alive, self.begun, self.step, self.said_its_last = True, False, 0, False
        self._cluster, self._files = cluster, cluster.files
        self._told = 0

    def act(self, what: str) -> None:
        """Look at the control file, and do `what` unless it says otherwise."""
        if not self.begun and job_spec(self.job) not in self._files:
            self.exit(RayJobStatus.FAILED)  # its job was deleted
            return
        if what == "die":
            self.exit(RayJobStatus.FAILED)
            return
        fence, desired = self._look()
        if fence > self.attempt or self._is_second():
            self.exit(RayJobStatus.SUCCEEDED)
        elif not self.begun:
            self.begun = True
            self._files[attempt_driver(self.job, self.attempt)] = b"{}"
            self._tell({"type": "attempt.started"})
            self._tell({"type": "stage.started", "stage": 0, "data": {"name": "s", "steps": 10, "student": STUDENT}})
        elif fence == self.attempt and desired != "run":
            self._tell({"type": "attempt.stopped", "data": {"desired": desired, "step": self.step}})
            self.exit(RayJobStatus.SUCCEEDED)
        else:
            self._go_on(what)

    def unfenced(self) -> bool:
        """Whether it would go on if it looked now."""
        return self.alive and self.begun and self._look()[0] <= self.attempt

    def _is_second(self) -> bool:
        return not self.begun and attempt_driver(self.job, self.attempt) in self._files

    def exit(self, status: RayJobStatus) -> None:
        self.alive = False
        if self.submission_id in self._cluster.records:
            self._cluster.records[self.submission_id] = status

    def _go_on(self, what: str) -> None:
        if what == "train":
            self.step += 1
            self._tell({"type": "progress", "stage": 0, "data": {"step": self.step, "steps": 10, "metrics": {"loss": 1.0}}})
        elif what == "evaluate":
            self._tell({"type": "stage.evaluating", "stage": 0})
        elif what == "mumble":
            no_number = {"step": f"x{self._told}"}
            self._tell({"type": "stage.finished", "stage": 7}, {"type": "progress", "stage": 0, "data": no_number})
        elif what in ("fail", "break"):
            self._tell({"type": "attempt.failed", "message": what, "data": {"code": "x", "retryable": what == "fail"}})
            self.exit(RayJobStatus.FAILED)
        elif what in ("finish", "vanish"):
            spec = json.loads(self._files[job_spec(self.job)])
            document = model_document(spec["model_name"], spec["model_version"])
            self._tell({"type": "stage.finished", "stage": 0}, {"type": "model.exported", "data": document})
            if what == "finish":
                self._tell({"type": "attempt.succeeded"})
            self.exit(RayJobStatus.SUCCEEDED)

    def _look(self) -> tuple[int, str]:
        control = json.loads(self._files.get(job_control(self.job), b'{"fence": 0, "desired": "run"}'))
        return control["fence"], control["desired"]

    def _tell(self, *events: dict[str, Any]) -> None:
        self._told += 1
        self.said_its_last |= events[-1]["type"] in ("attempt.succeeded", "attempt.failed", "attempt.stopped")
        stamp = {"time": "2026-01-01T00:00:00Z", "attempt": self.attempt}
        lines = "\n".join(json.dumps({**stamp, **event}) for event in events)
        self._files[event_segment(attempt_events(self.job, self.attempt), self._told)] = lines.encode()
