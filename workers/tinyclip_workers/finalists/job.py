"""The work of the Ray job `tc-finalists-<search>-a<attempt>`: measure the finalists of a search in every engine.

Each finalist in each engine is kept in the artifacts store as it is measured, so that a later attempt continues after it. The
result is committed as one file, `finalists.json`. An attempt that finds that of its own request only emits the final event again.
"""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from tinyclip.artifacts.paths import search_finalists, search_finalists_request
from tinyclip.artifacts.searches import Finalists, FinalistsRequest, Quality
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.searches import Measurement

from tinyclip_workers.costs.measuring import describe_hardware
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.evaluation.labels import task_pointer
from tinyclip_workers.evaluation.progress import PassProgress
from tinyclip_workers.evaluation.tasks import shards_to_read
from tinyclip_workers.finalists.engines import device_for, engines_for, keys_for
from tinyclip_workers.finalists.kept import KeptMeasurements
from tinyclip_workers.finalists.measuring import EngineOnDevice, groups_in_memory, measure_costs, measure_quality, reason_of
from tinyclip_workers.finalists.versions import FinalistVersion, find_version
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.ray_job import JobFailed, RequestWithdrawn

log = logging.getLogger(__name__)


def measure_finalists(store: ArtifactsStore, id: str, attempt: int, events: EventWriter) -> None:
    """Measure what the request names, and emit `finalists.finished`. Raises RequestWithdrawn, JobFailed."""
    request = _read_request(store, id, attempt)
    result = _written(store, id, request)
    if result is None:
        events.send("finalists.started")
        result = _measure(store, id, request, events)
        _read_request(store, id, attempt)
        store.write_bytes(search_finalists(id), result.model_dump_json().encode())
    events.send("finalists.finished", data=result.model_dump(mode="json"))


def _measure(store: ArtifactsStore, id: str, request: FinalistsRequest, events: EventWriter) -> Finalists:
    """Raises RequestWithdrawn, JobFailed."""
    try:
        with tempfile.TemporaryDirectory(prefix="tinyclip-finalists-") as cache:
            return _Measuring(store, id, request, events, Path(cache)).result()
    except TeacherError as error:
        raise JobFailed("unreadable_model", error.message, pointer=error.pointer, value=error.value) from error
    except DataError as error:
        raise JobFailed("unreadable_data", str(error), pointer=task_pointer(request.tasks, error), value=error.value) from error
    except (ValueError, OSError) as error:
        raise JobFailed("finalists_failed", str(error)) from error


class _Measuring:
    """The measurements of one request. Methods raise RequestWithdrawn, JobFailed, TeacherError, DataError or OSError."""

    def __init__(self, store: ArtifactsStore, id: str, request: FinalistsRequest, events: EventWriter, cache: Path) -> None:
        self._store, self._id, self._request, self._events = store, id, request, events
        self._device = device_for(request)
        names = engines_for(request.hardware, self._device)
        self._engines = [EngineOnDevice(name, keys_for(request.hardware, name), self._device, cache) for name in names]
        found = enumerate(request.finalists)
        self._versions = [find_version(finalist, f"/finalists/{index}/model/source") for index, finalist in found]
        self._shards = shards_to_read(request.tasks)
        self._kept = KeptMeasurements(store, id, request, describe_hardware(self._device))
        self._total, self._done = len(self._engines) * len(self._versions), 0
        self._left_out: dict[int, dict[str, str]] = {}

    def result(self) -> Finalists:
        measurements: dict[int, list[Measurement]] = {version.trial: [] for version in self._versions}
        for engine in self._engines:
            for version, measurement in self._in_engine(engine):
                measurements[version.trial].append(measurement)
        if self._versions and not any(measurements.values()):
            reason = next(iter(self._left_out[self._versions[0].trial].values()))
            raise JobFailed("finalists_failed", f"no engine can compute any of the versions: {reason}")
        return Finalists(request=self._request.digest(), measurements=measurements, left_out=self._left_out)

    def _in_engine(self, engine: EngineOnDevice) -> list[tuple[FinalistVersion, Measurement]]:
        """Measure all versions in an engine, but for those that an earlier attempt has measured."""
        unmeasured = [version for version in self._versions if self._kept.find(version, engine.name) is None]
        for group in groups_in_memory(unmeasured):
            self._costs(engine, group)
        found = [(version, self._with_quality(engine, version)) for version in self._versions]
        return [(version, measurement) for version, measurement in found if measurement is not None]

    def _costs(self, engine: EngineOnDevice, versions: Sequence[FinalistVersion]) -> None:
        self._expect_request()
        found = measure_costs(versions, engine)
        for version in versions:
            measured = found[version.trial]
            if isinstance(measured, str):
                self._leave_out(engine, version, measured)
            else:
                self._kept.keep(version, measured, complete=False)

    def _with_quality(self, engine: EngineOnDevice, version: FinalistVersion) -> Measurement | None:
        """Return the measurement of a version whose costs are known; None if it is left out."""
        kept = self._kept.find(version, engine.name)
        measurement = kept.measurement if kept is not None else None
        if kept is not None and not kept.is_complete:
            self._expect_request()
            quality = self._quality(engine, version)
            measurement = None if quality is None else kept.measurement.model_copy(update={"quality": quality})
            if measurement is not None:
                self._kept.keep(version, measurement, complete=True)
        self._done += 1
        self._report(f"measured {self._done} of {self._total}: {version.name} in {engine.name}")
        return measurement

    def _quality(self, engine: EngineOnDevice, version: FinalistVersion) -> Quality | None:
        progress = PassProgress(
            self._shards,
            lambda fraction, samples: self._report(f"{version.name} in {engine.name}: {samples:,} samples", fraction),
        )
        try:
            return measure_quality(version, engine, self._request.tasks, progress.add)
        except (TeacherError, DataError, OSError):
            raise
        except Exception as error:  # embeddings that are not finite, or as in `EngineOnDevice.build`
            self._leave_out(engine, version, reason_of(error))
            return None

    def _leave_out(self, engine: EngineOnDevice, version: FinalistVersion, reason: str) -> None:
        self._left_out.setdefault(version.trial, {})[engine.name] = reason
        log.warning("%s is not measured in %s: %s", version.name, engine.name, reason)  # an event of the job's log as well

    def _report(self, message: str, part: float | None = None) -> None:
        fraction = (self._done + (part or 0.0)) / self._total
        self._events.send("finalists.progress", message=message, data={"fraction": fraction})

    def _expect_request(self) -> None:
        _read_request(self._store, self._id, self._request.attempt)


def _written(store: ArtifactsStore, id: str, request: FinalistsRequest) -> Finalists | None:
    """Return the result of an earlier attempt; None if there is none, or one of another request of this search."""
    content = store.read_if_exists(search_finalists(id))
    result = Finalists.model_validate_json(content) if content is not None else None
    return result if result is not None and result.request == request.digest() else None


def _read_request(store: ArtifactsStore, id: str, attempt: int) -> FinalistsRequest:
    """Raises RequestWithdrawn, JobFailed."""
    path = search_finalists_request(id)
    try:
        request = FinalistsRequest.model_validate_json(store.read_bytes(path))
    except FileNotFoundError as error:
        raise RequestWithdrawn(f"search {id} was deleted") from error
    except ValidationError as error:
        raise JobFailed("finalists_failed", f"{store.uri(path)} is not a request for finalists: {error}") from error
    if request.attempt != attempt:
        raise RequestWithdrawn(f"attempt {request.attempt} of search {id} has taken over")
    return request
