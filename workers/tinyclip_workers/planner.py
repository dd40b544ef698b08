"""The planner's process, which the control plane keeps warm: `python -m tinyclip_workers.planner`.

It writes `{"ready": true}`, then answers each line of JSON on stdin with one on stdout: `{"id", "spec", "dataset"}` with
`{"id", "plan"}` or `{"id", "errors"}`, `{"id", "evaluation"}` with `{"id", "errors", "warnings"}`, and `{"id",
"reinforcement"}` with `{"id", "cost"}` or `{"id", "errors"}`. Questions about samples have the answers of `plan.samples`, those
about items of an index the answers of `plan.items`, and `{"id", "search"}` and `{"id", "search_plan"}` those of
`searching.answers`.
Before an answer, lines `{"id", "doing"}` report its steps. After an internal error, it answers `{"id", "failed": true}`; out of
memory, `{"id", "exhausted": true}`, and exits. All other output is written to stderr.
"""

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import IO, Any

from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.items import item_or_problem, item_thumbnail_or_problem
from tinyclip_workers.plan.reinforcement import cost_or_errors
from tinyclip_workers.plan.samples import image_or_problem, samples_or_problem, thumbnail_or_problem
from tinyclip_workers.plan.specs import evaluation_errors, plan_or_errors
from tinyclip_workers.runtime.json_lines import take_stdout, write_answer
from tinyclip_workers.runtime.memory import is_out_of_memory

OnStep = Callable[[str, Any, str], None]


def main() -> None:
    """Answer until stdin ends. An internal error costs its question only; its traceback is written to stderr."""
    answers = take_stdout()
    write_answer(answers, {"ready": True})
    for line in sys.stdin:
        if not line.strip():
            continue
        request = json.loads(line)
        try:
            found = _answer(request, partial(_report_step, answers, request["id"]))
        except Exception as error:
            if is_out_of_memory(error):
                write_answer(answers, {"id": request["id"], "exhausted": True})
                return  # memory may be fragmented: the next question is for a new process
            traceback.print_exc()
            found = {"failed": True}
        write_answer(answers, {"id": request["id"], **found})


def _answer(request: Mapping[str, Any], on_step: OnStep) -> dict[str, Any]:
    if "spec" in request:
        return plan_or_errors(request["spec"], Diagnostics(on_step=on_step), request.get("dataset"))
    if "reinforcement" in request:
        return cost_or_errors(request["reinforcement"], Diagnostics(on_step=on_step))
    if "search" in request or "search_plan" in request:
        from tinyclip_workers.searching.answers import advice_or_errors, forecast_or_errors  # deferred: SciPy takes a second

        answer = advice_or_errors if "search" in request else forecast_or_errors
        return answer(request.get("search") or request["search_plan"])
    if "samples" in request:
        return samples_or_problem(request["samples"], Diagnostics(on_step=on_step))
    if "thumbnail" in request:
        return thumbnail_or_problem(request["thumbnail"], Diagnostics(on_step=on_step))
    if "item" in request:
        return item_or_problem(request["item"], Diagnostics(on_step=on_step))
    if "item_thumbnail" in request:
        return item_thumbnail_or_problem(request["item_thumbnail"], Diagnostics(on_step=on_step))
    if "image" in request:
        return image_or_problem(request["image"], Diagnostics(on_step=on_step))
    return evaluation_errors(request["evaluation"], Diagnostics(on_step=on_step))


def _report_step(answers: IO[str], id: str, pointer: str, value: Any, what: str) -> None:
    write_answer(answers, {"id": id, "doing": {"pointer": pointer, "value": value, "what": what}})


if __name__ == "__main__":
    main()
