"""`tinyclip-client jobs …`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from tinyclip import _jobs
from tinyclip._calls import Call
from tinyclip._client import Client
from tinyclip.cli._numbers import duration, number
from tinyclip.cli._session import AsJson, PageSize, PageToken, answer, connect, console, messages, more, print_json, run, table
from tinyclip.cli._specfile import load_spec
from tinyclip.cli._summary import plan_table
from tinyclip.cli._watch import conclude, teacher_of, watch
from tinyclip.errors import InputError
from tinyclip.schemas import Event, Job, LogLine, Metrics, Page, Plan

app = typer.Typer(help="Submit jobs and follow them.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as job_….")]
Patience = Annotated[float, typer.Option("--patience", help="Seconds that the server may be away while it is watched.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PLACE=VALUE", help="As optimizer.lr=1e-4 or stages.0.train.steps=10.")
]

_PATIENCE = 300.0


@app.command()
def submit(
    context: typer.Context,
    spec_file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="YAML or JSON; its relative paths are beside it.")],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would do, without doing it.")] = False,
    watched: Annotated[bool, typer.Option("--watch", help="Follow the job until it ends, as `jobs watch` does.")] = False,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key and spec give the same job again.")] = None,
    patience: Patience = _PATIENCE,
    as_json: AsJson = False,
) -> None:
    """Submit a spec."""
    spec = load_spec(spec_file, overrides or [])
    with connect(context) as client:
        if dry_run:
            answer(client, _jobs.plan(spec), _show_plan, as_json)
            return
        call = _jobs.submit(spec, idempotency_key=idempotency_key)
        if not watched:
            answer(client, call, _show_job, as_json)
            return
        _watch(client, client._transport.send(call).id, patience, as_json)


@app.command("watch")
def watch_(context: typer.Context, job: JobId, patience: Patience = _PATIENCE, as_json: AsJson = False) -> None:
    """Follow a job until it ends. Exits 0 succeeded, 1 failed, 2 usage, 3 cancelled, 4 cannot reach the server."""
    with connect(context) as client:
        _watch(client, job, patience, as_json)


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY:VALUE", help="Only jobs with this label.")] = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    labels = dict(_label(pair) for pair in label or [])
    call = _jobs.page(state=state, name=name, labels=labels, page_size=page_size, page_token=page_token)
    run(context, call, _show_jobs, as_json)


@app.command()
def get(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Show one job, with its table when it has succeeded."""
    with connect(context) as client:

        def show(found: Job) -> None:
            _show_job(found)
            if found.state.terminal:
                conclude(console(), found, teacher_of(client, found.id))

        answer(client, _jobs.get(job), show, as_json)


@app.command()
def cancel(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """End a job without a student."""
    _show(context, _jobs.cancel(job), as_json)


@app.command()
def events(
    context: typer.Context,
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they happen, until the job ends.")] = False,
    page_size: PageSize = 200,
    page_token: PageToken = None,
    as_json: AsJson = False,
) -> None:
    """Show what has happened to a job."""
    if not follow:
        run(context, _jobs.events_page(job, page_size=page_size, page_token=page_token), _show_events, as_json)
        return
    with connect(context) as client:
        for event in client.jobs.events(job):
            print_json(event.model_dump_json()) if as_json else _show_event(event)


@app.command()
def logs(
    context: typer.Context,
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they come, until the job ends.")] = False,
    tail: Annotated[int | None, typer.Option(min=1, help="Only so many of the last lines.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Show a job's log lines."""
    if not follow:
        run(context, _jobs.logs_page(job, tail=tail), _show_log_lines, as_json)
        return
    with connect(context) as client:
        for line in client.jobs.logs(job):
            print_json(line.model_dump_json()) if as_json else _show_log_line(line)


@app.command()
def metrics(
    context: typer.Context,
    job: JobId,
    names: Annotated[str | None, typer.Option(metavar="NAME,NAME", help="Only these series, as loss,lr.")] = None,
    stage: Annotated[int | None, typer.Option(min=0, help="Only this stage, counted from 0.")] = None,
    max_points: Annotated[int | None, typer.Option(min=1, help="At most so many points a stage.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a job's numbers: where each series began, where it stands, its least and its most."""
    wanted = names.split(",") if names else None
    run(context, _jobs.metrics(job, names=wanted, stage=stage, max_points=max_points), _show_metrics, as_json)


def _watch(client: Client, job_id: str, patience: float, as_json: bool) -> None:
    out = messages() if as_json else console()
    try:
        job, teacher = watch(client, job_id, out, patience)
    except KeyboardInterrupt:
        messages().print(f"{job_id} goes on; `tinyclip-client jobs watch {job_id}` follows it again", markup=False)
        raise typer.Exit(130) from None
    code = conclude(out, job, teacher)
    if as_json:
        answer(client, _jobs.get(job_id), _show_job, as_json)
    raise typer.Exit(code)


def _show(context: typer.Context, call: Call[Job], as_json: bool) -> None:
    run(context, call, _show_job, as_json)


def _show_job(job: Job) -> None:
    progress = job.progress
    under_way = not job.state.terminal and progress.steps > 0
    how_far = f"  {100 * progress.fraction:.0f}%  eta {duration(progress.eta_seconds)}" if under_way else ""
    console().print(f"{job.id} {job.name} {job.state}{how_far}", markup=False)


def _show_jobs(page: Page[Job]) -> None:
    out = console()
    made = table(out, "id", "name", "state", "done", "stage", "model", "created", right=("done",))
    for job in page.items:
        model = f"{job.model.name}@{job.model.version}" if job.model else ""
        stage = f"{job.progress.stage + 1}/{len(job.stages)}"
        created = job.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        made.add_row(job.id, job.name, job.state, f"{100 * job.progress.fraction:.0f}%", stage, model, created)
    out.print(made)
    more(out, page.next_page_token)


def _show_plan(plan: Plan) -> None:
    out = console()
    out.print(plan_table(out, plan))
    cost = f"{plan.steps} steps on {plan.device}, about {plan.device_hours:.3g} device-hours"
    out.print(f"{cost}; {plan.samples_per_epoch} pairs an epoch")
    for warning in plan.warnings:
        out.print(f"warning: {warning}", markup=False)


def _show_events(page: Page[Event]) -> None:
    for event in page.items:
        _show_event(event)
    more(console(), page.next_page_token)


def _show_event(event: Event) -> None:
    stage = "" if event.stage is None else f" stage {event.stage + 1}"
    console().print(Text(f"{event.id:>5} {event.created_at.astimezone():%H:%M:%S} {event.type}{stage} {event.message}".rstrip()))


def _show_log_lines(page: Page[LogLine]) -> None:
    for line in page.items:
        _show_log_line(line)


def _show_log_line(line: LogLine) -> None:
    console().print(Text(f"{line.created_at.astimezone():%H:%M:%S} {line.level:<7} {line.source}: {line.message}"))


def _show_metrics(metrics: Metrics) -> None:
    out = console()
    numbers = ("stage", "steps", "first", "last", "least", "most")
    made = table(out, "series", *numbers, right=numbers)
    for name, points in metrics.series.items():
        for stage in sorted({point.stage for point in points}):
            values = [point.value for point in points if point.stage == stage]
            last_step = max(point.step for point in points if point.stage == stage)
            shown = (values[0], values[-1], min(values), max(values))
            made.add_row(name, str(stage + 1), str(last_step), *map(number, shown))
    out.print(made)


def _label(pair: str) -> tuple[str, str]:
    key, colon, value = pair.partition(":")
    if not colon:
        raise InputError(f"--label {pair}", "write it as KEY:VALUE")
    return key, value
