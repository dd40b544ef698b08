"""The tables, by what they hold. `Base.metadata` has all of them once this package is imported."""

from tinyclip_server.database.engine import Base
from tinyclip_server.database.tables.access import IdempotencyRow, TokenRow
from tinyclip_server.database.tables.datasets import (
    DatasetAliasRow,
    DatasetNameRow,
    DatasetRow,
    DatasetVersionRow,
    ReinforcementRow,
)
from tinyclip_server.database.tables.installation import InstallationRow
from tinyclip_server.database.tables.jobs import AttemptRow, EventRow, JobLabelRow, JobRow, LogLineRow, MetricPointRow, StageRow
from tinyclip_server.database.tables.models import AliasRow, DeploymentRow, ModelRow, ModelVersionRow
from tinyclip_server.database.tables.ray_jobs import EvaluationRow, ExportRow, IndexRow, IndexUpdateRow, RayJobRow
from tinyclip_server.database.tables.searches import MeasurementRow, SearchEventRow, SearchRow, TrialRow

__all__ = [
    "AliasRow", "AttemptRow", "Base", "DatasetAliasRow", "DatasetNameRow", "DatasetRow", "DatasetVersionRow", "DeploymentRow",
    "EvaluationRow", "EventRow", "ExportRow", "IdempotencyRow", "IndexRow", "IndexUpdateRow", "InstallationRow", "JobLabelRow",
    "JobRow", "LogLineRow", "MeasurementRow", "MetricPointRow", "ModelRow", "ModelVersionRow", "RayJobRow", "ReinforcementRow",
    "SearchEventRow", "SearchRow", "StageRow", "TokenRow", "TrialRow",
]  # fmt: skip
