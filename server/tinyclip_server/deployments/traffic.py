"""The traffic of a deployment: the metrics of its replicas, summed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.samples import Sample
from tinyclip.schemas import (
    BatchSizes,
    CachedTexts,
    Latency,
    ModelShare,
    PhaseLatency,
    ReplicaTraffic,
    RequestCount,
    RouteLatency,
    Traffic,
)

from tinyclip_server.backends.node_metrics import PREFIX, ServeSnapshot
from tinyclip_server.database.tables import DeploymentRow
from tinyclip_server.deployments.histograms import Histogram
from tinyclip_server.deployments.replicas import ReplicaStatus, replicas_of
from tinyclip_server.http.services import Services

NO_QUERIES = frozenset({
    "/healthz", "/.well-known/live", "/.well-known/ready", "/meta", "/openapi.json", "/v1/models", "/v1/models/{id:path}",
    "/indices-list", "/label-sets", "/label-sets/{name}",
})  # fmt: skip
"""Routes that compute nothing, some of which machines call all the time: they are counted, but not as queries."""
SUFFIXES = ("_bucket", "_sum", "_count")


async def traffic(services: Services, row: DeploymentRow) -> Traffic:
    """Return the traffic of a deployment. Raises RayUnavailable."""
    snapshot = await services.node_metrics.snapshot()
    replicas = replicas_of(services, row, snapshot.status)
    own = {replica.worker_id: snapshot.samples.get(replica.worker_id, ()) for replica in replicas}
    return summed(row.name, snapshot, replicas, own)


def summed(
    name: str, snapshot: ServeSnapshot, replicas: Sequence[ReplicaStatus], samples: Mapping[str, Sequence[Sample]]
) -> Traffic:
    """Return the sums over replicas; `samples` are the metrics of each by its process."""
    every = [sample for each in samples.values() for sample in each]
    counts, waiting = _requests(every), _by_label(every, "waiting_items", "kind")
    routes = _histograms(every, "request_seconds", "route")
    nodes = {replica.node_id for replica in replicas}
    queries = sum(number for (route, _, _), number in counts.items() if route not in NO_QUERIES)
    return Traffic(
        deployment=name,
        measured_at=snapshot.at,
        queries=queries,
        latency=_latency(_of_queries(routes)),
        models=_models(counts, queries),
        counts=[
            RequestCount(route=route, status=int(status), model=model, requests=number)
            for (route, status, model), number in sorted(counts.items())
        ],
        routes=[RouteLatency(route=route, **_latency(times).model_dump()) for (route,), times in sorted(routes.items())],
        phases=[
            PhaseLatency(route=route, phase=phase, **_latency(times).model_dump())
            for (route, phase), times in sorted(_histograms(every, "phase_seconds", "route", "phase").items())
        ],
        batches=[_batches(kind, sizes) for (kind,), sizes in sorted(_histograms(every, "batch_items", "kind").items())],
        cached_texts=_cached_texts(_by_label(every, "cached_texts_total", "result")),
        waiting={kind: round(items) for kind, items in sorted(waiting.items())},
        replicas=[_replica(replica, samples.get(replica.worker_id, ())) for replica in replicas],
        unreachable=sorted({address for node, address in snapshot.unreachable.items() if node in nodes}),
    )


def _requests(samples: Iterable[Sample]) -> dict[tuple[str, str, str], int]:
    """Return the numbers of requests by route, status and model."""
    found = Counter[tuple[str, str, str]]()
    for sample in samples:
        if sample.name == f"{PREFIX}requests_total" and sample.labels.get("status", "").isdecimal():
            found[sample.labels.get("route", ""), sample.labels["status"], sample.labels.get("model", "")] += round(sample.value)
    return found


def _by_label(samples: Iterable[Sample], name: str, label: str) -> dict[str, float]:
    found = dict[str, float]()
    for sample in samples:
        if sample.name == PREFIX + name:
            key = sample.labels.get(label, "")
            found[key] = found.get(key, 0.0) + sample.value
    return found


def _histograms(samples: Iterable[Sample], name: str, *labels: str) -> dict[tuple[str, ...], Histogram]:
    found: dict[tuple[str, ...], Histogram] = {}
    names = {PREFIX + name + suffix: suffix for suffix in SUFFIXES}
    for sample in samples:
        suffix = names.get(sample.name)
        if suffix is None:
            continue
        histogram = found.setdefault(tuple(sample.labels.get(label, "") for label in labels), Histogram())
        if suffix == "_bucket":
            histogram.cumulative[float(sample.labels["le"])] += sample.value  # type: ignore[assignment]
        elif suffix == "_sum":
            histogram.sum += sample.value
        else:
            histogram.count += sample.value
    return found


def _of_queries(routes: Mapping[tuple[str, ...], Histogram]) -> Histogram:
    total = Histogram()
    for (route,), times in routes.items():
        if route not in NO_QUERIES:
            total.add(times)
    return total


def _latency(times: Histogram) -> Latency:
    p50, p95, p99 = [_ms(times.quantile(q)) for q in (0.5, 0.95, 0.99)]
    return Latency(count=round(times.count), mean_ms=_ms(times.mean), p50_ms=p50, p95_ms=p95, p99_ms=p99)


def _models(counts: Mapping[tuple[str, str, str], int], queries: int) -> list[ModelShare]:
    by_model = Counter[str]()
    for (route, _, model), number in counts.items():
        if route not in NO_QUERIES:
            by_model[model] += number
    return [
        ModelShare(model=model, requests=number, share=number / queries if queries else 0.0)
        for model, number in by_model.most_common()
    ]


def _batches(kind: str, sizes: Histogram) -> BatchSizes:
    return BatchSizes(kind=kind, batches=round(sizes.count), mean=sizes.integer_mean, buckets=sizes.buckets())


def _cached_texts(by_result: Mapping[str, float]) -> CachedTexts:
    hits, misses = round(by_result.get("hit", 0)), round(by_result.get("miss", 0))
    return CachedTexts(hits=hits, misses=misses, hit_rate=hits / (hits + misses) if hits + misses else None)


def _replica(replica: ReplicaStatus, samples: Sequence[Sample]) -> ReplicaTraffic:
    shown = ReplicaTraffic(
        id=replica.id, state=replica.state, node_id=replica.node_id, node_ip=replica.node_ip, started_at=replica.started_at
    )
    if samples:
        shown.requests = sum(number for (route, _, _), number in _requests(samples).items() if route not in NO_QUERIES)
        shown.mean_ms = _ms(_of_queries(_histograms(samples, "request_seconds", "route")).mean)
        shown.waiting_items = round(sum(_by_label(samples, "waiting_items", "kind").values()))
    return shown


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)
