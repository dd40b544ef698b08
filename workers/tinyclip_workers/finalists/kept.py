"""Measurements of earlier attempts: each finalist in each engine is kept in the artifacts store as soon as it is measured."""

import hashlib
import json
from dataclasses import dataclass

from tinyclip.artifacts.paths import search_finalists_measured
from tinyclip.artifacts.searches import FinalistsRequest, MeasuredFinalist
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.searches import Measurement

from tinyclip_workers.finalists.versions import FinalistVersion


@dataclass(frozen=True)
class KeptMeasurements:
    """The measurements of a search's finalists; those under other conditions do not count."""

    store: ArtifactsStore
    search: str
    request: FinalistsRequest
    hardware: str
    """The name of the processor or GPU."""

    def find(self, version: FinalistVersion, engine: str) -> MeasuredFinalist | None:
        content = self.store.read_if_exists(search_finalists_measured(self.search, version.trial, engine))
        kept = MeasuredFinalist.model_validate_json(content) if content is not None else None
        return kept if kept is not None and kept.conditions == self._conditions(version) else None

    def keep(self, version: FinalistVersion, measurement: Measurement, *, complete: bool) -> None:
        kept = MeasuredFinalist(conditions=self._conditions(version), measurement=measurement, is_complete=complete)
        path = search_finalists_measured(self.search, version.trial, measurement.engine)
        self.store.write_bytes(path, kept.model_dump_json().encode())

    def _conditions(self, version: FinalistVersion) -> str:
        asked = self.request.model_dump(mode="json", include={"hardware", "tasks"})
        conditions = [version.name, version.digest, version.holdout, self.hardware, asked]
        return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()
