"""A cluster whose failures the test controls.

`CallGate` holds every call of a server to Ray and the store until the test delivers, loses or repeats it; `Cluster` is Ray with
its head and the drivers it started; a `Driver` behaves like the engine and reads the control file before each action.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinyclip.artifacts.paths import attempt_driver, attempt_events, event_segment, job_control, job_spec
from tinyclip_server.backends.ray_gateway import RayJobNote, RayJobStatus, RayUnavailable

from tests.server.documents import STUDENT, model_document

Files = dict[str, bytes]


@dataclass
class HeldCall:
    """A call that the server has sent and that has not arrived."""

    what: str
    effect: Callable[[], Any]
    answer: asyncio.Future[Any]

    def deliver(self) -> None:
        """Deliver the call and its result."""
        try:
            self.answer.set_result(self.effect())
        except RayUnavailable as error:
            self.answer.set_exception(error)

    def fail(self, *, arrived: bool) -> None:
        """Fail the call, whether or not it arrived."""
        if arrived:
            with contextlib.suppress(RayUnavailable):
                self.effect()
        self.answer.set_exception(RayUnavailable("no answer") if self.what.startswith("ray") else OSError("no answer"))


class CallGate:
    """Holds the calls of one server."""

    def __init__(self) -> None:
        self.held: list[HeldCall] = []
        self.open = False
        self.changes: list[str] = []
        """Calls that change files or Ray, since the test cleared them."""

    async def __call__(self, what: str, effect: Callable[[], Any]) -> Any:
        if what.startswith(("store write", "store remove", "ray submit", "ray stop")):
            self.changes.append(what)
        if self.open:
            return effect()
        held = HeldCall(what, effect, asyncio.get_running_loop().create_future())
        self.held.append(held)
        try:
            return await held.answer
        finally:
            self.held = [other for other in self.held if other is not held]


class GatedStore:
    """The artifacts store of one server, behind its gate. A value may be out of date by the time that it is used."""

    root = "memory"

    def __init__(self, files: Files, gate: CallGate, on_control: Callable[[str, int], None]) -> None:
        self._files, self._gate, self._on_control = files, gate, on_control

    async def read_if_exists(self, path: str) -> bytes | None:
        found = self._files.get(path)
        if found is None:  # the last of several reads, before their values are used
            await self._gate(f"store read {path}", lambda: None)
        return found

    async def write_bytes(self, path: str, data: bytes, *, within_s: float = 0.0) -> None:
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
    """Ray. Its records are lost with the head; drivers may outlive them."""

    files: Files
    up: bool = True
    records: dict[str, RayJobStatus] = field(default_factory=dict)
    drivers: list["Driver"] = field(default_factory=list)

    def submit(self, submission_id: str) -> None:
        self._expect_up()
        if submission_id not in self.records:
            self.records[submission_id] = RayJobStatus.RUNNING
            self.drivers.append(Driver(self, submission_id))

    def status(self, submission_id: str) -> RayJobStatus | None:
        self._expect_up()
        return self.records.get(submission_id)

    def stop(self, submission_id: str) -> None:
        self._expect_up()
        if submission_id in self.records:
            for driver in self.running_drivers():
                if driver.submission_id == submission_id:
                    driver.exit(RayJobStatus.STOPPED)

    def running_drivers(self) -> list["Driver"]:
        return [driver for driver in self.drivers if driver.alive]

    def lose_head(self, *, with_drivers: bool) -> None:
        for driver in self.running_drivers() if with_drivers else ():
            driver.alive = False
        self.records.clear()

    def _expect_up(self) -> None:
        if not self.up:
            raise RayUnavailable("connection refused")


class GatedRay:
    """The cluster, behind the gate of one server."""

    def __init__(self, cluster: Cluster, gate: CallGate) -> None:
        self._cluster, self._gate = cluster, gate

    async def submit_job(self, submission_id: str, entrypoint: str, metadata: dict[str, str]) -> None:
        await self._gate(f"ray submit {submission_id}", lambda: self._cluster.submit(submission_id))

    async def job_status(self, submission_id: str) -> RayJobStatus | None:
        found: RayJobStatus | None = await self._gate("ray status", lambda: self._cluster.status(submission_id))
        return found

    async def job_note(self, submission_id: str) -> RayJobNote | None:
        return None

    async def stop_job(self, submission_id: str) -> None:
        await self._gate(f"ray stop {submission_id}", lambda: self._cluster.stop(submission_id))


class Driver:
    """The processes of one attempt: they begin, read the control file, train and end."""

    def __init__(self, cluster: Cluster, submission_id: str) -> None:
        self.submission_id = submission_id
        self.job, _, attempt = submission_id.removeprefix("tc-").rpartition("-a")
        self.attempt = int(attempt)
        self.alive, self.begun, self.step, self.reported_outcome = True, False, 0, False
        self.hangs = False
        self._cluster, self._files = cluster, cluster.files
        self._segments = 0

    def act(self, what: str) -> None:
        """Read the control file, and do `what` unless it demands otherwise."""
        if not self.begun and not self.hangs and job_spec(self.job) not in self._files:
            self.exit(RayJobStatus.FAILED)  # its job was deleted
            return
        if what == "die":
            self.exit(RayJobStatus.FAILED)
            return
        if self.hangs:
            return
        fence, desired = self._control()
        if fence > self.attempt or self._is_second():
            self.exit(RayJobStatus.SUCCEEDED)
        elif not self.begun:
            self.begun = True
            self._files[attempt_driver(self.job, self.attempt)] = b"{}"
            self._emit({"type": "attempt.started"})
            self._emit({"type": "stage.started", "stage": 0, "data": {"name": "s", "steps": 10, "student": STUDENT}})
        elif fence == self.attempt and desired != "run":
            self._emit({"type": "attempt.stopped", "data": {"desired": desired, "step": self.step}})
            self.exit(RayJobStatus.SUCCEEDED)
        else:
            self._continue(what)

    def unfenced(self) -> bool:
        """Return whether it would continue after reading the control file."""
        return self.alive and self.begun and self._control()[0] <= self.attempt

    @property
    def out_of_reach(self) -> bool:
        """Return whether it hangs and Ray has no record of it: nothing can stop it, and the fence keeps it harmless."""
        return self.hangs and self.submission_id not in self._cluster.records

    def _is_second(self) -> bool:
        return not self.begun and attempt_driver(self.job, self.attempt) in self._files

    def exit(self, status: RayJobStatus) -> None:
        self.alive = False
        if self.submission_id in self._cluster.records:
            self._cluster.records[self.submission_id] = status

    def _continue(self, what: str) -> None:
        if what == "train":
            self.step += 1
            self._emit({"type": "progress", "stage": 0, "data": {"step": self.step, "steps": 10, "metrics": {"loss": 1.0}}})
        elif what == "hang":
            self.hangs = True
        elif what == "evaluate":
            self._emit({"type": "stage.evaluating", "stage": 0})
        elif what == "malformed":
            malformed = {"step": f"x{self._segments}"}
            self._emit({"type": "stage.finished", "stage": 7}, {"type": "progress", "stage": 0, "data": malformed})
        elif what in ("fail", "break"):
            self._emit({"type": "attempt.failed", "message": what, "data": {"code": "x", "retryable": what == "fail"}})
            self.exit(RayJobStatus.FAILED)
        elif what in ("finish", "vanish"):
            spec = json.loads(self._files[job_spec(self.job)])
            document = model_document(spec["model_name"], spec["model_version"])
            self._emit({"type": "stage.finished", "stage": 0}, {"type": "model.exported", "data": document})
            if what == "finish":
                self._emit({"type": "attempt.succeeded"})
            self.exit(RayJobStatus.SUCCEEDED)

    def _control(self) -> tuple[int, str]:
        control = json.loads(self._files.get(job_control(self.job), b'{"fence": 0, "desired": "run"}'))
        return control["fence"], control["desired"]

    def _emit(self, *events: dict[str, Any]) -> None:
        self._segments += 1
        self.reported_outcome |= events[-1]["type"] in ("attempt.succeeded", "attempt.failed", "attempt.stopped")
        stamp = {"time": "2026-01-01T00:00:00Z", "attempt": self.attempt}
        lines = "\n".join(json.dumps({**stamp, **event}) for event in events)
        self._files[event_segment(attempt_events(self.job, self.attempt), self._segments)] = lines.encode()
