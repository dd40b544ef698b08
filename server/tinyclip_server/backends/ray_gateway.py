"""The only module that calls Ray: its Jobs API and Serve's REST API, both at the dashboard's address.

Plain HTTP through httpx rather than Ray's own client: nothing here blocks the event loop, and `RAY_ADDRESS` cannot redirect it.
"""

import logging
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import httpx
from tinyclip.bounded_json import off_the_loop

logger = logging.getLogger(__name__)

JOB_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_JOB_STOP_WAIT_TIME_S": "10",
    "PYTHONUNBUFFERED": "1",
}
START_TIMEOUT = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
MAX_ACTORS = 1000
METRICS_SECONDS = 3.0
MAX_METRICS_BYTES = 32 << 20
"""Size of one node's metrics, of which few lines are kept."""
UNKNOWN_JOB = "Job {} does not exist"
"""The body of Ray's 404 for a job that it has no record of."""


class RayJobStatus(StrEnum):
    """The status that Ray reports for a job; an observation, never the record."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def ended(self) -> bool:
        return self in (RayJobStatus.STOPPED, RayJobStatus.SUCCEEDED, RayJobStatus.FAILED)


@dataclass(frozen=True)
class RayJobNote:
    """Ray's explanation of a job's status."""

    message: str
    never_started: bool = False
    """True if Ray gave the job up because its driver found no room on the cluster for `RAY_JOB_START_TIMEOUT_SECONDS` (900)."""


@dataclass(frozen=True)
class LiveJob:
    """Ray's record of a job that is PENDING or RUNNING."""

    submission_id: str
    """Empty for a program that connected to the cluster by itself."""
    entrypoint: str
    status: str
    ray_id: str = ""
    """The id by which its actors name it."""
    driver_node: str | None = None
    started_at: datetime | None = None


@dataclass(frozen=True)
class EndedJob:
    """Ray's record of a job that has ended."""

    submission_id: str
    entrypoint: str
    ended_at: datetime


class RayUnavailable(Exception):
    """No usable answer: the request may or may not have taken effect."""

    def __init__(self, message: str, answer: str = "no answer") -> None:
        """`answer`: what Ray answered, for users; `message` may name addresses within the cluster."""
        super().__init__(message)
        self.answer = answer


class RayRefused(Exception):
    """Ray understood the request and refused it."""


class Ray(Protocol):
    """The operations of Ray that the control plane uses."""

    async def submit_job(self, submission_id: str, entrypoint: str, metadata: dict[str, str]) -> None:
        """Submit a job; it is a success if a job exists under this id. Raises RayUnavailable, RayRefused."""

    async def job_status(self, submission_id: str) -> RayJobStatus | None:
        """Return a job's status; None if Ray does not know the job. Raises RayUnavailable."""

    async def job_note(self, submission_id: str) -> RayJobNote | None:
        """Return the explanation of a job's status; None if Ray does not know the job. Raises RayUnavailable."""

    async def stop_job(self, submission_id: str) -> None:
        """Stop a job; a no-op for an unknown or ended one. Raises RayUnavailable."""

    async def delete_job(self, submission_id: str) -> None:
        """Delete Ray's record of an ended job; a no-op for an unknown one. Raises RayUnavailable."""

    async def ended_jobs(self) -> list[EndedJob]:
        """Return all ended jobs of the cluster, also those of other services. Raises RayUnavailable."""

    async def live_jobs(self) -> list[LiveJob]:
        """Return all jobs of the cluster that have not ended, also those of other services. Raises RayUnavailable."""

    async def nodes(self) -> dict[str, Any]:
        """Return the data of the dashboard's `GET /nodes?view=summary`. Raises RayUnavailable."""

    async def actor_nodes(self) -> dict[str, set[str]]:
        """Return the nodes of running actors, by Ray's id of their job: of the first thousand. Raises RayUnavailable."""

    async def node_metrics(self, address: str, prefix: bytes) -> str:
        """Return the lines of a node's metrics that begin with `prefix`. Raises RayUnavailable."""

    async def cluster_version(self) -> str:
        """Return the version of Ray that the cluster runs. Raises RayUnavailable."""

    async def put_serve_applications(self, body: dict[str, Any]) -> None:
        """Configure all applications of Serve; those not listed are deleted. Raises RayUnavailable, RayRefused."""

    async def serve_status(self) -> dict[str, Any]:
        """Return Serve's `GET /api/serve/applications/`. Raises RayUnavailable."""

    async def deployment_health(self, endpoint: str) -> dict[str, Any] | None:
        """Return a replica's report at the deployment's URL; None if none answers.

        Serve reports a deployment as running a moment before its proxy routes requests to it.
        """

    async def ready(self) -> bool:
        """Return whether the cluster answers."""

    async def close(self) -> None: ...


class RayGateway:
    """Client of one cluster. `driver_cpus` of None keeps drivers on the head node; any number lets them run elsewhere."""

    def __init__(
        self, address: str, *, token_path: Path | None = None, driver_cpus: float | None = None,
        job_environment: Mapping[str, str] | None = None, timeout_s: float = 15.0,
    ) -> None:
        self._job_environment = {**JOB_ENVIRONMENT, **(job_environment or {})}
        self._token_path, self._driver_cpus = token_path, driver_cpus
        self._away = False
        self._http = httpx.AsyncClient(base_url=address, timeout=timeout_s, trust_env=False)

    async def submit_job(self, submission_id: str, entrypoint: str, metadata: dict[str, str]) -> None:
        body: dict[str, Any] = {
            "submission_id": submission_id,
            "entrypoint": entrypoint,
            "metadata": {"job_name": submission_id, **metadata},
            "runtime_env": {"env_vars": self._job_environment},
        }
        if self._driver_cpus is not None:
            body["entrypoint_num_cpus"] = self._driver_cpus
        answer = await self._ask("POST", "/api/jobs/", json=body)
        if answer.status_code == 500 and await self.job_status(submission_id) is not None:
            return  # Ray answers 500 for an existing id
        if answer.status_code in (400, 413):
            raise RayRefused(_last_line(answer))
        _expect_success(answer)

    async def job_status(self, submission_id: str) -> RayJobStatus | None:
        answer = await self._ask("GET", f"/api/jobs/{submission_id}")
        if _is_unknown_job(answer, submission_id):
            return None
        _expect_success(answer)
        return RayJobStatus(answer.json()["status"])

    async def job_note(self, submission_id: str) -> RayJobNote | None:
        answer = await self._ask("GET", f"/api/jobs/{submission_id}")
        if _is_unknown_job(answer, submission_id):
            return None
        _expect_success(answer)
        job = answer.json()
        return RayJobNote(job.get("message") or "", never_started=job.get("error_type") == START_TIMEOUT)

    async def stop_job(self, submission_id: str) -> None:
        answer = await self._ask("POST", f"/api/jobs/{submission_id}/stop")
        if answer.status_code != 400 and not _is_unknown_job(answer, submission_id):
            _expect_success(answer)

    async def delete_job(self, submission_id: str) -> None:
        answer = await self._ask("DELETE", f"/api/jobs/{submission_id}")
        if not _is_unknown_job(answer, submission_id):
            _expect_success(answer)

    async def ended_jobs(self) -> list[EndedJob]:
        answer = await self._ask("GET", "/api/jobs/")
        _expect_success(answer)
        return [
            EndedJob(job["submission_id"], job["entrypoint"], datetime.fromtimestamp(job["end_time"] / 1000, UTC))
            for job in answer.json()
            if job.get("submission_id") and job.get("end_time") and RayJobStatus(job["status"]).ended
        ]

    async def live_jobs(self) -> list[LiveJob]:
        answer = await self._ask("GET", "/api/jobs/")
        _expect_success(answer)
        return [_live_job(job) for job in answer.json() if not RayJobStatus(job["status"]).ended]

    async def nodes(self) -> dict[str, Any]:
        answer = await self._ask("GET", "/nodes", params={"view": "summary"})
        _expect_success(answer)
        data: dict[str, Any] = await off_the_loop(len(answer.content), lambda: answer.json().get("data") or {})
        return data

    async def actor_nodes(self) -> dict[str, set[str]]:
        running = {"filter_keys": "state", "filter_predicates": "=", "filter_values": "ALIVE", "limit": str(MAX_ACTORS)}
        answer = await self._ask("GET", "/api/v0/actors", params=running, timeout=5.0)
        _expect_success(answer)
        nodes: dict[str, set[str]] = {}
        for actor in ((answer.json().get("data") or {}).get("result") or {}).get("result") or ():
            if actor.get("job_id") and actor.get("node_id"):
                nodes.setdefault(actor["job_id"], set()).add(actor["node_id"])
        return nodes

    async def node_metrics(self, address: str, prefix: bytes) -> str:
        """Keep only these lines while reading: a busy node reports megabytes about everything else."""
        url, kept, rest, size = f"http://{address}/metrics", list[bytes](), b"", 0
        try:
            async with self._http.stream("GET", url, timeout=METRICS_SECONDS) as answer:
                if not answer.is_success:
                    raise RayUnavailable(f"{url}: {answer.status_code}", str(answer.status_code))
                async for chunk in answer.aiter_bytes():
                    size += len(chunk)
                    if size > MAX_METRICS_BYTES:
                        raise RayUnavailable(f"{url}: more than {MAX_METRICS_BYTES:,} bytes", "too large an answer")
                    *lines, rest = (rest + chunk).split(b"\n")
                    kept += [line for line in lines if line.startswith(prefix)]
        except httpx.HTTPError as error:
            raise RayUnavailable(f"{url}: {error or type(error).__name__}") from error
        return b"\n".join([*kept, b""]).decode(errors="replace")

    async def put_serve_applications(self, body: dict[str, Any]) -> None:
        answer = await self._ask("PUT", "/api/serve/applications/", json=body, timeout=60.0)
        if answer.status_code in (400, 422):
            raise RayRefused(_last_line(answer))
        _expect_success(answer)

    async def serve_status(self) -> dict[str, Any]:
        answer = await self._ask("GET", "/api/serve/applications/")
        _expect_success(answer)
        status: dict[str, Any] = answer.json()
        return status

    async def deployment_health(self, endpoint: str) -> dict[str, Any] | None:
        try:
            answer = await self._http.get(f"{endpoint}/healthz", timeout=5.0)
            health: dict[str, Any] | None = answer.json() if answer.is_success else None
        except (httpx.HTTPError, ValueError):
            return None
        return health

    async def ready(self) -> bool:
        try:
            return (await self._ask("GET", "/api/version")).is_success
        except RayUnavailable:
            return False

    async def cluster_version(self) -> str:
        answer = await self._ask("GET", "/api/version")
        _expect_success(answer)
        return str(answer.json()["ray_version"])

    async def close(self) -> None:
        await self._http.aclose()

    async def _ask(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        try:
            answer = await self._http.request(
                method, path, json=json, params=params, headers=self._authorization(),
                timeout=httpx.USE_CLIENT_DEFAULT if timeout is None else timeout,
            )
            if self._away:
                logger.info("Ray at %s answers", self._http.base_url)
                self._away = False
            return answer
        except httpx.HTTPError as error:
            if not self._away:  # logged once per outage: many loops ask, and often
                logger.info("Ray at %s does not answer: %s", self._http.base_url, error or type(error).__name__)
                self._away = True
            raise RayUnavailable(f"{method} {path} at {self._http.base_url}: {error or type(error).__name__}") from error

    def _authorization(self) -> dict[str, str]:
        """Return the header with the cluster's token, read each time: it may be rotated, or not be written yet."""
        path = self._token_path or os.environ.get("RAY_AUTH_TOKEN_PATH")
        token = os.environ.get("RAY_AUTH_TOKEN", "") if self._token_path is None else ""
        if not token and path:
            try:
                token = Path(path).read_text().strip()
            except OSError as error:
                raise RayUnavailable(f"the cluster's token cannot be read: {error}") from error
        return {"Authorization": f"Bearer {token}"} if token else {}


def _expect_success(answer: httpx.Response) -> None:
    if not answer.is_success:
        given = f"{answer.status_code} {_last_line(answer)}"
        raise RayUnavailable(f"{answer.request.method} {answer.request.url.path}: {given}", given)


def works_in(entrypoint: str, root: str) -> bool:
    """Return whether a job works in this artifacts store: several services may use one cluster."""
    return f" --artifacts {shlex.quote(root)} " in entrypoint


def _live_job(job: dict[str, Any]) -> LiveJob:
    started = job.get("start_time")
    return LiveJob(
        submission_id=job.get("submission_id") or "", entrypoint=job.get("entrypoint") or "", status=job["status"],
        ray_id=job.get("job_id") or "", driver_node=job.get("driver_node_id") or None,
        started_at=datetime.fromtimestamp(started / 1000, UTC) if started else None,
    )  # fmt: skip


def _is_unknown_job(answer: httpx.Response, submission_id: str) -> bool:
    """Return whether Ray answered that it has no record of a job. A 404 of anything else, as of a proxy, is no such answer."""
    return answer.status_code == 404 and answer.text.strip() == UNKNOWN_JOB.format(submission_id)


def _last_line(answer: httpx.Response) -> str:
    """Return the last line of the traceback that Ray answers with: the error itself."""
    lines = [line for line in answer.text.splitlines() if line.strip()]
    return lines[-1].strip()[:500] if lines else "no reason given"
