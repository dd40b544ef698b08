"""The registration of one version: scan the shards, commit their index and report, and the version's document last."""

import json
import time

import pyarrow as pa
from tinyclip.artifacts.documents import DatasetRequest
from tinyclip.artifacts.paths import dataset_document, dataset_lacking, dataset_report, dataset_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON
from tinyclip.schemas.datasets import DatasetReport

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.dataset_index import write_index
from tinyclip_workers.data.index.values import count_lacking
from tinyclip_workers.datasets.captions.joined_file import CountedCaptions, join_captions
from tinyclip_workers.datasets.images.task_images import TaskScan, read_task_images, scan_task_images
from tinyclip_workers.datasets.inputs import Inputs, find_inputs
from tinyclip_workers.datasets.report.building import Measured, build_report
from tinyclip_workers.datasets.scan.merging import Merged, Parts, merge_parts, remove_findings
from tinyclip_workers.datasets.scan.tasks import WANTED_SECONDS, Registration, scan_shards
from tinyclip_workers.datasets.teacher_sample import EncodedPairs, TeacherScan, choose_runs, encode_sample, read_encoded
from tinyclip_workers.datasets.version_document import data_digest, is_unchanged, report_digest, version_document
from tinyclip_workers.runtime.events import EventWriter

SCANNED, JOINED, COMPARED, ENCODED = 0.85, 0.88, 0.91, 0.96
"""The progress after the shards, further captions, images of tasks and the teacher's pairs; the rest is the report."""


def register_version(store: ArtifactsStore, request: DatasetRequest, events: EventWriter) -> JSON:
    """Register the version that a request names. Return its document, or `{"unchanged": True}`.

    Parts of earlier attempts are used. Raises DataError, TeacherError, RequestWithdrawn, OSError, TaskLost.
    """
    path = dataset_document(request.name, request.version)
    if (finished := store.read_if_exists(path)) is not None:  # by an attempt that ended before it reported that
        remove_findings(store, dataset_version(request.name, request.version))
        document: JSON = json.loads(finished)
        return document
    return _Registering(store, request, events).run()


class _Registering:
    """The steps of a registration."""

    def __init__(self, store: ArtifactsStore, request: DatasetRequest, events: EventWriter) -> None:
        self._store, self._request = store, request
        self._inputs: Inputs = find_inputs(request.request)
        measuring = self._inputs.measuring
        self._registration = Registration(
            store.root, request.name, request.version, request.attempt, self._inputs.settings(),
            measuring.memory if measuring is not None else 0.0,
        )  # fmt: skip
        self._folder = self._registration.folder
        self._parts = Parts(store, self._folder, self._inputs.urls, self._on_step)
        self._progress, self._checked_at = _Progress(events, len(self._inputs.urls)), time.monotonic()

    def run(self) -> JSON:
        """Do them all, and return the version's document or that nothing has changed."""
        scan_shards(self._registration, self._inputs.urls, self._inputs.files, self._progress.report_scan)
        merged = merge_parts(self._parts)
        _expect_pairs(merged, self._request)
        joined = self._join()
        self._progress.report("comparing with evaluation tasks", JOINED)
        task_images = self._task_images()
        digest = data_digest(merged, self._inputs, joined)
        of_report = report_digest(digest, self._inputs, task_images)
        self._registration.expect_wanted(self._store)
        if is_unchanged(self._store, self._request, digest, of_report):
            self._store.remove(self._folder)
            return {"unchanged": True}
        write_index(self._store, self._folder, merged.shards)
        report = self._report(merged, joined, task_images)
        self._registration.expect_wanted(self._store)
        self._store.write_bytes(dataset_report(self._folder), report.model_dump_json(indent=1).encode())
        version = version_document(self._request, merged, report, digest, of_report)
        self._registration.expect_wanted(self._store)
        path = dataset_document(self._request.name, self._request.version)
        self._store.write_bytes(path, version.model_dump_json(indent=1).encode())
        remove_findings(self._store, self._folder)
        return version.model_dump(mode="json")

    def _on_step(self, message: str) -> None:
        """Report what is done, and look at the request now and then. Raises RequestWithdrawn."""
        if time.monotonic() - self._checked_at >= WANTED_SECONDS:
            self._checked_at = time.monotonic()
            self._registration.expect_wanted(self._store)
        self._progress.report_step(message)

    def _join(self) -> CountedCaptions | None:
        address = self._request.request.source.captions
        if address is None:
            return None
        self._progress.report("joining captions", SCANNED)
        context, languages = self._inputs.context_length, self._request.request.source.languages
        return join_captions(self._store, self._folder, address, self._inputs.urls, context, self._on_step, languages)

    def _task_images(self) -> pa.Table:
        request, put = self._request, self._request.request
        scan = TaskScan(self._store.root, request.name, request.version, request.attempt, tuple(put.tasks), put.holdout)
        scan_task_images(scan, self._inputs.task_shards, self._on_step)
        self._registration.expect_wanted(self._store)  # otherwise the tasks have written nothing
        return read_task_images(self._store, scan, self._inputs.task_shards)

    def _report(self, merged: Merged, joined: CountedCaptions | None, task_images: pa.Table) -> DatasetReport:
        teacher = self._inputs.teacher
        self._progress.report("encoding pairs with the teacher" if teacher else "writing the report", COMPARED)
        encoded = self._encode(merged)
        self._progress.report("writing the report", ENCODED)
        languages = self._request.request.source.languages
        pairs = sum(shard.pairs for shard in merged.shards)
        lacking = count_lacking(self._store, dataset_lacking(self._folder), pairs, len(languages))
        measured = Measured(merged, lacking, joined, task_images, teacher.source.name if teacher else "", encoded)
        return build_report(self._parts, self._request.request, measured, self._inputs.teacher_size)

    def _encode(self, merged: Merged) -> EncodedPairs | None:
        """Return pairs that the teacher has encoded; None without a teacher."""
        request, source, teacher = self._request, self._request.request.source, self._inputs.teacher
        if teacher is None:
            return None
        scan = TeacherScan(
            self._store.root, request.name, request.version, request.attempt, teacher.spec, teacher.digest, teacher.memory,
            tuple(source.image_key), source.caption_key, source.languages[0] if source.languages else "",
        )  # fmt: skip
        chosen = choose_runs(merged.usable)
        encode_sample(scan, merged.shards, chosen, self._on_step)
        self._registration.expect_wanted(self._store)  # as above
        return read_encoded(self._store, scan, chosen)


def _expect_pairs(merged: Merged, request: DatasetRequest) -> None:
    """Raise DataError if no sample can be used, with the reason."""
    statistics, source = merged.statistics, request.request.source
    broken = [shard for shard in merged.broken if shard.samples == 0]
    if len(broken) == len(merged.shards):
        message = f"none of the {len(broken):,} shards can be read; the first is {broken[0].url}: {broken[0].reason}"
        raise DataError(f"{message}; check the paths and the files", field="source.shards", value=broken[0].url)
    if statistics.usable:
        return
    if statistics.kept == 0:
        message = f"where excludes all of the {statistics.samples:,} samples; check its fields and values"
        raise DataError(message, field="source.where", value=str(source.where)[:200])
    code, count = statistics.counts.most_common(1)[0]
    first = statistics.examples[code][0]
    message = f"none of the {statistics.kept:,} samples is usable; of {count:,}, the first is {first['key']}: {first['detail']}"
    key = "image_key" if code.endswith("images") else "caption_key"
    raise DataError(f"{message}; check source.{key}", field=f"source.{key}", value=getattr(source, key))


class _Progress:
    """Reports progress about once a second."""

    def __init__(self, events: EventWriter, shards: int) -> None:
        self._events, self._shards, self._reported_at, self._reported = events, shards, 0.0, (-1, 0.0)
        self._share, self._message = 0.0, ""

    def report_scan(self, finished: int, share: float) -> None:
        """Send an event if there is progress: without any, the control plane ends the attempt after some time."""
        if (finished, share) != self._reported and time.monotonic() - self._reported_at >= 1:
            self._reported_at, self._reported = time.monotonic(), (finished, share)
            self.report(f"{finished:,} of {self._shards:,} shards", SCANNED * share)

    def report_step(self, message: str) -> None:
        """Send an event if the message has changed, about once a second."""
        if message != self._message and time.monotonic() - self._reported_at >= 1:
            self._reported_at = time.monotonic()
            self.report(message, self._share)

    def report(self, message: str, share: float) -> None:
        self._share, self._message = share, message
        self._events.send("dataset.progress", message=message, data={"fraction": round(share, 4)})
