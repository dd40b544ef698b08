"""Answers to the control plane's questions about searches, as plain data."""

from collections.abc import Callable
from typing import Any

from tinyclip.artifacts.searches import CostModel, SearchRecord
from tinyclip.schemas import FieldError

from tinyclip_workers.costs.model import Key, predict
from tinyclip_workers.searching.advice import ImpossibleSearch, advise
from tinyclip_workers.searching.costs import Cost, Latency
from tinyclip_workers.searching.estimates import bounds, duration
from tinyclip_workers.searching.specs import with_settings
from tinyclip_workers.searching.sweeps import first_values


def advice_or_errors(record: dict[str, Any]) -> dict[str, Any]:
    """Return `{"advice": …}` or `{"errors": […]}` for a `SearchRecord`."""
    return _answer(record, lambda parsed: {"advice": advise(parsed, latency_of(parsed.costs)).model_dump(mode="json")})


def forecast_or_errors(record: dict[str, Any]) -> dict[str, Any]:
    """Return `{"bounds": […], "estimate": …}` or `{"errors": […]}` for the record of a search that has not begun."""
    return _answer(record, _forecast)


def latency_of(costs: CostModel | None) -> Latency | None:
    """Return the latencies that a cost model predicts; None without one."""
    if costs is None:
        return None

    def latency(layout: Any, cost: Cost) -> float:
        fitted = costs.engines.get(cost.key)
        if fitted is None:
            raise ValueError(f"the cost model has no {cost.key}; it has {', '.join(costs.engines)}")
        return predict(fitted, Key.parse(cost.key), layout)

    return latency


def _forecast(record: SearchRecord) -> dict[str, Any]:
    with_settings(record.post.spec.model_dump(mode="json"), first_values(record.post))  # raises for a path that cannot be
    found = bounds(record, latency_of(record.costs))
    return {
        "bounds": [bound.model_dump(mode="json") for bound in found],
        "estimate": duration(record).model_dump(mode="json"),
    }


def _answer(record: dict[str, Any], ask: Callable[[SearchRecord], dict[str, Any]]) -> dict[str, Any]:
    parsed = SearchRecord.model_validate(record)
    try:
        return ask(parsed)
    except ImpossibleSearch as error:
        errors = [FieldError(pointer=bound.pointer, value=bound.limit, message=bound.message) for bound in error.bounds]
        return {"errors": [each.model_dump(mode="json") for each in errors]}
    except ValueError as error:
        pointer = "/constraints" if parsed.post.constraints else "/vary"
        return {"errors": [{"pointer": pointer, "value": None, "message": str(error)}]}
