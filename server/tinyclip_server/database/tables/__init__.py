"""The tables, by what they hold."""

from tinyclip_server.database.tables.access import IdempotencyRow, TokenRow
from tinyclip_server.database.tables.jobs import AttemptRow, EventRow, JobLabelRow, JobRow, LogLineRow, MetricPointRow, StageRow
from tinyclip_server.database.tables.models import AliasRow, DeploymentRow, ModelRow, ModelVersionRow
from tinyclip_server.database.tables.ray_jobs import EvaluationRow, ExportRow, IndexRow, IndexUpdateRow, RayJobRow

__all__ = [
    "AliasRow", "AttemptRow", "DeploymentRow", "EvaluationRow", "EventRow", "ExportRow",
    "IdempotencyRow", "IndexRow", "IndexUpdateRow", "JobLabelRow", "JobRow", "LogLineRow",
    "MetricPointRow", "ModelRow", "ModelVersionRow", "RayJobRow", "StageRow", "TokenRow",
]  # fmt: skip
