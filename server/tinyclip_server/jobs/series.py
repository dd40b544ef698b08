"""A job's metrics over its steps, reduced in the database so that a long run is as quick to plot as a short one."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tinyclip_server.database.tables import MetricPointRow


async def metric_points(
    session: AsyncSession, job_id: str, names: Sequence[str], stage: int | None, max_points: int, limit: int
) -> Sequence[Row[str, int, int, float]]:
    """Return (name, stage, step, value), ordered; no series has more than `max_points` points a stage, all have `limit`.

    Of a longer series the first and the last point are kept, and the minimum and maximum of each of as many equal runs of
    points as fit. A peak of a single step stays visible, and every point was measured.
    """
    wanted: list[ColumnElement[bool]] = [MetricPointRow.job_id == job_id]
    if names:
        wanted.append(MetricPointRow.name.in_(names))
    if stage is not None:
        wanted.append(MetricPointRow.stage == stage)
    series = (MetricPointRow.name, MetricPointRow.stage)
    point = (
        select(
            MetricPointRow.name, MetricPointRow.stage, MetricPointRow.step, MetricPointRow.value,
            func.row_number().over(partition_by=series, order_by=MetricPointRow.step).label("number"),
            func.count().over(partition_by=series).label("size"),
        )
        .where(*wanted)
        .subquery()
        .c
    )
    runs = max(0, max_points - 2) // 2
    run = (point.name, point.stage, (point.number - 1) * max(1, runs) // point.size)
    ranked = select(
        point.name, point.stage, point.step, point.value, point.number, point.size,
        func.row_number().over(partition_by=run, order_by=(point.value, point.step)).label("lowest"),
        func.row_number().over(partition_by=run, order_by=(point.value.desc(), point.step)).label("highest"),
    ).subquery().c
    kept = (ranked.size <= max_points) | (ranked.number == ranked.size)
    if max_points > 1:
        kept |= ranked.number == 1
    if runs:
        kept |= (ranked.lowest == 1) | (ranked.highest == 1)
    query = select(ranked.name, ranked.stage, ranked.step, ranked.value).where(kept)
    return (await session.execute(query.order_by(ranked.name, ranked.stage, ranked.step).limit(limit))).all()
