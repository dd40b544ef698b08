"""One attempt at a job, from the first stage to a model version (`python -m tinyclip_workers.training.driver --help`).

The driver of the Ray job. For each stage it runs a Ray Train worker group; a stage that any attempt has finished is not repeated.
It reports to the artifacts store only, so the control plane may be down.
"""

import argparse
import logging
import os
import sys

import ray
from tinyclip.schemas.layouts import AnyLayout

from tinyclip_workers.model.files.sources import find_teacher, of_parent
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.runtime.attempt import JobAttempt, Outcome
from tinyclip_workers.runtime.control import Command
from tinyclip_workers.runtime.events import EventWriter, log_to_events
from tinyclip_workers.training.checkpoints import adopt
from tinyclip_workers.training.dataset import prepare_index
from tinyclip_workers.training.groups.group import cluster_size, describe_failure, train_on_group
from tinyclip_workers.training.stage import Stage, resolve_stage
from tinyclip_workers.training.vocabulary import prepare_tokenizer
from tinyclip_workers.training.worker import NON_RETRYABLE_ERRORS, error_code
from tinyclip_workers.versions.writer import write_student_version

log = logging.getLogger(__name__)


def main() -> None:
    """Run an attempt. Exit status 0: succeeded, stopped on command, or superseded by a newer attempt; 1: failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--attempt", type=int, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    run = JobAttempt.open(arguments.artifacts, arguments.job, arguments.attempt)
    if run.control().read() is Command.FENCED or not run.register_driver():
        return
    status = 0 if run_attempt(run, arguments.artifacts) else 1
    if run.control().read() is Command.FENCED:
        _exit_without_ray(status)
    sys.exit(status)


def run_attempt(run: JobAttempt, artifacts: str) -> bool:
    """Do the rest of the job and report its end; returns False if it failed."""
    events = run.events()
    with log_to_events(events, "driver"):
        return _run_attempt(run, artifacts, events)


def _run_attempt(run: JobAttempt, artifacts: str, events: EventWriter) -> bool:
    events.send("attempt.started", message=f"attempt {run.attempt} started")
    try:
        if adopted := adopt(run):
            log.info("continuing from %s", adopted)
        outcome = _train_stages(run, artifacts, events)
        if outcome is None:
            _export(run, events)
            events.send("attempt.succeeded", message=f"attempt {run.attempt} succeeded")
    except NON_RETRYABLE_ERRORS as error:
        outcome = Outcome("failed", error_code(error), str(error))
    except Exception as error:  # possibly a fault of the cluster: the control plane decides about a retry
        log.exception("attempt %d failed", run.attempt)
        events.send("attempt.failed", message=describe_failure(error), data={"code": "attempt_failed", "retryable": True})
        return False
    return _report_outcome(outcome, events)


def _exit_without_ray(status: int) -> None:
    """Exit at once. If the Ray head was lost, which is one reason for a newer attempt, Ray's shutdown waits a minute for it."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


def _load_teacher_layout(run: JobAttempt, events: EventWriter) -> AnyLayout | None:
    """Find the teachers, report them, and return the layout of the first; `None` without a teacher."""
    found = [(find_teacher(at.spec, at.pointer), at.share) for at in run.spec.every_teacher()]
    if not found:
        return None
    first = found[0][0]
    data = {"name": first.name, **summarize(first.layout).model_dump(mode="json")}
    if len(found) == 1:
        events.send("teacher.loaded", message=f"teacher {first.name}", data=data)
        return first.layout
    names = " and ".join(f"{source.name} ({share:.0%})" for source, share in found)
    all_of_them = [{"name": s.name, "share": share, **summarize(s.layout).model_dump(mode="json")} for s, share in found]
    events.send("teacher.loaded", message=f"teachers {names}", data={**data, "teachers": all_of_them})
    return first.layout


def _train_stages(run: JobAttempt, artifacts: str, events: EventWriter) -> Outcome | None:
    """Train each stage that has no finished student yet. Returns `None` at the end of the job, else why it stopped.

    A stage is resolved when its parent is finished: the student of an automatic stage is known only then.
    """
    spec, teacher = run.spec, _load_teacher_layout(run, events)
    if not ray.is_initialized():
        ray.init()
    pairs = prepare_index(run)
    first, named = spec.first_teacher, of_parent(spec, find_teacher)
    source = named or (None if first is None else find_teacher(first))
    tokenizer = prepare_tokenizer(run, source)
    vocab_size = None if tokenizer is None else tokenizer.vocab_size
    samples = spec.data.train.samples or pairs
    log.info("Ray has %s", ", ".join(f"{count:g} {kind}" for kind, count in cluster_size().items()))
    before: Stage | None = None
    parent = teacher if named is None else named.layout
    for index in range(len(spec.stages)):
        stage = resolve_stage(spec, index, parent, before, samples, vocab_size)
        student = run.finished_stage(index)
        if student is None:
            outcome = _train_stage(run, artifacts, stage, events)
            if outcome:
                return outcome
            student = run.finished_stage(index)
        if student is None:
            if run.control().read() is Command.FENCED:
                return Outcome("fenced")
            raise RuntimeError(f"the worker group of stage {stage.name} ended without a student")
        before, parent = stage, student.layout
    return None


def _train_stage(run: JobAttempt, artifacts: str, stage: Stage, events: EventWriter) -> Outcome | None:
    command = run.control().read()
    if command is not Command.RUN:
        return Outcome(command.name.lower())
    # The student of an automatic stage is reported at the prune step.
    student = None if stage.prune is not None else summarize(stage.layout).model_dump(mode="json")
    events.send(
        "stage.started",
        stage=stage.index,
        message=f"stage {stage.name} started: {stage.steps} steps",
        data={"name": stage.name, "inherit": stage.inherit, "steps": stage.steps, "student": student},
    )
    train_on_group(run, artifacts, stage, events)
    return run.outcome()


def _report_outcome(outcome: Outcome | None, events: EventWriter) -> bool:
    """Report how an attempt ended, unless it was superseded; returns False if it failed."""
    if outcome is None or outcome.kind == "fenced":
        return True
    if outcome.kind == "failed":
        events.send("attempt.failed", message=outcome.message, data={"code": outcome.code, "retryable": False})
        return False
    data = {"desired": outcome.kind, "step": outcome.step}
    events.send("attempt.stopped", data=data, message=f"stopped at step {outcome.step}: {outcome.kind}")
    return True


def _export(run: JobAttempt, events: EventWriter) -> None:
    student = run.finished_stage(len(run.spec.stages) - 1)
    assert student is not None  # the last stage has just finished
    version = write_student_version(run, student)
    events.send("model.exported", message=f"model {version.name}@{version.version} written", data=version.model_dump(mode="json"))


if __name__ == "__main__":
    main()
