"""`tinyclip-client jobs …`."""

from pathlib import Path
from typing import Annotated

import typer

from tinyclip._client import Client
from tinyclip._resources import jobs as calls
from tinyclip.cli.display import jobs as display
from tinyclip.cli.display.console import console, messages, print_json
from tinyclip.cli.session import AsJson, PageSize, PageToken, connect, run, send
from tinyclip.cli.watch import conclude, teacher_of, watch
from tinyclip.errors import InputError
from tinyclip.schemas import Job
from tinyclip.specfile import load_spec, parse_assignments

app = typer.Typer(help="Submit, follow and control jobs.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as job_….")]
Patience = Annotated[float, typer.Option("--patience", help="Seconds that the server may be away.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="For example optimizer.lr=1e-4 or stages.0.train.steps=10."),
]

_PATIENCE = 300.0


@app.command()
def submit(
    context: typer.Context,
    spec_file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="YAML or JSON; its paths are relative to it.")],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan without submitting.")] = False,
    watched: Annotated[bool, typer.Option("--watch", help="Follow the job until it ends, as `jobs watch`.")] = False,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key and spec return the same job.")] = None,
    patience: Patience = _PATIENCE,
    as_json: AsJson = False,
) -> None:
    """Submit a job."""
    spec = load_spec(spec_file, overrides or [])
    with connect(context) as client:
        if dry_run:
            send(client, calls.plan(spec), display.show_plan, as_json)
            return
        call = calls.submit(spec, idempotency_key=idempotency_key)
        if not watched:
            send(client, call, display.show_job, as_json)
            return
        _watch(client, client.send(call).id, patience, as_json)


@app.command("watch")
def watch_(context: typer.Context, job: JobId, patience: Patience = _PATIENCE, as_json: AsJson = False) -> None:
    """Follow a job until it ends. Exits with 0 succeeded, 1 failed, 2 usage error, 3 cancelled, 4 server unreachable."""
    with connect(context) as client:
        _watch(client, job, patience, as_json)


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; repeated: in any of these.")] = None,
    name: Annotated[list[str] | None, typer.Option(help="Only jobs with this name; repeated: with any of these.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY:VALUE", help="Only jobs with this label; repeated: with all of these.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only jobs with this in their name, id or value of a label.")
    ] = None,
    parent: Annotated[str | None, typer.Option(metavar="SEARCH", help="Only trials of the search with this id.")] = None,
    page_size: PageSize = 50,
    page_token: PageToken = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    labels = dict(_label(pair) for pair in label or [])
    call = calls.page(
        state=state, name=name, labels=labels, search=search, parent=parent, page_size=page_size, page_token=page_token
    )
    run(context, call, display.show_jobs, as_json)


@app.command()
def get(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Show a job, with its scores if it has succeeded."""
    with connect(context) as client:

        def show(shown: Job) -> None:
            display.show_job(shown)
            if shown.state.terminal:
                conclude(console(), shown, teacher_of(client, shown.id))

        send(client, calls.get(job), show, as_json)


@app.command()
def cancel(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Cancel a job."""
    run(context, calls.cancel(job), display.show_job, as_json)


@app.command()
def pause(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Pause a job at a checkpoint, from which it can be resumed."""
    run(context, calls.pause(job), display.show_job, as_json)


@app.command()
def resume(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Resume a paused job."""
    run(context, calls.resume(job), display.show_job, as_json)


@app.command()
def retry(
    context: typer.Context,
    job: JobId,
    watched: Annotated[bool, typer.Option("--watch", help="Follow the new job until it ends.")] = False,
    patience: Patience = _PATIENCE,
    as_json: AsJson = False,
) -> None:
    """Retry a failed or cancelled job from its last checkpoint, as a new job."""
    with connect(context) as client:
        if not watched:
            send(client, calls.retry(job), display.show_job, as_json)
            return
        _watch(client, client.send(calls.retry(job)).id, patience, as_json)


@app.command()
def update(
    context: typer.Context,
    job: JobId,
    name: Annotated[str | None, typer.Option(help="The new name.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY:VALUE", help="A new label; all labels are replaced.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher runs first.")] = None,
    if_match: Annotated[str | None, typer.Option(metavar="ETAG", help="Only if the job has not changed since this ETag.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a job's name, labels or priority."""
    labels = dict(_label(pair) for pair in label) if label is not None else None
    given = {"name": name, "labels": labels, "priority": priority}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise InputError("jobs update", "give --name, --label or --priority")
    run(context, calls.update(job, changes, if_match=if_match), display.show_job, as_json)


@app.command()
def clone(context: typer.Context, job: JobId, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Submit a job's spec again, with changes."""
    run(context, calls.clone(job, parse_assignments(overrides or [])), display.show_job, as_json)


@app.command()
def delete(
    context: typer.Context,
    job: JobId,
    if_match: Annotated[str | None, typer.Option(metavar="ETAG", help="Only if the job has not changed since this ETag.")] = None,
    as_json: AsJson = False,
) -> None:
    """Delete a job that has ended, and its artifacts; its model versions stay."""
    run(context, calls.delete(job, if_match=if_match), lambda _: None, as_json)


@app.command()
def events(
    context: typer.Context,
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
    page_size: PageSize = 200,
    page_token: PageToken = None,
    as_json: AsJson = False,
) -> None:
    """Print a job's events."""
    if not follow:
        run(context, calls.events_page(job, page_size=page_size, page_token=page_token), display.show_events, as_json)
        return
    with connect(context) as client:
        for event in client.jobs.events(job):
            print_json(event.model_dump_json()) if as_json else display.show_event(event)


@app.command()
def logs(
    context: typer.Context,
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
    tail: Annotated[int, typer.Option(min=1, max=10_000, help="How many of the last lines to print.")] = 200,
    search: Annotated[str | None, typer.Option(metavar="TEXT", help="Only lines that contain this, in any case.")] = None,
    level: Annotated[list[str] | None, typer.Option(help="Only lines of this level; repeated: of any of these.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a job's log lines."""
    if not follow:
        run(context, calls.logs_page(job, tail=tail, search=search, level=level), display.show_log_lines, as_json)
        return
    with connect(context) as client:
        for line in client.jobs.logs(job, tail=tail, search=search, level=level):
            print_json(line.model_dump_json()) if as_json else display.show_log_line(line)


@app.command()
def metrics(
    context: typer.Context,
    job: JobId,
    names: Annotated[str | None, typer.Option(metavar="NAME,NAME", help="Only these series, as loss,lr.")] = None,
    stage: Annotated[int | None, typer.Option(min=0, help="Only this stage, counted from 0.")] = None,
    max_points: Annotated[int | None, typer.Option(min=1, help="The most points per stage.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print each point, and continue until the job ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a job's metrics: first, last, least and greatest value of each series, and a curve."""
    wanted = names.split(",") if names else None
    if follow:
        with connect(context) as client:
            for point in client.jobs.metric_points(job, names=wanted, stage=stage):
                print_json(point.model_dump_json()) if as_json else display.show_metric_point(point)
        return
    run(context, calls.metrics(job, names=wanted, stage=stage, max_points=max_points), display.show_metrics, as_json)


@app.command()
def checkpoints(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """List the checkpoints from which a job can continue."""
    run(context, calls.checkpoints(job), display.show_checkpoints, as_json)


@app.command()
def layout(
    context: typer.Context,
    job: JobId,
    stage: Annotated[int, typer.Option(min=0, help="An automatic stage, counted from 0.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file; by default JOB-STAGE.svg.")] = None,
) -> None:
    """Save a picture (SVG) of what an automatic stage has kept of every block."""
    target = output or Path(f"{job}-{stage}.svg")
    with connect(context) as client:
        target.write_text(client.jobs.layout_picture(job, stage), encoding="utf-8")
    console().print(f"{target}", markup=False)


def _watch(client: Client, job_id: str, patience: float, as_json: bool) -> None:
    out = messages() if as_json else console()
    try:
        job, teacher = watch(client, job_id, out, patience)
    except KeyboardInterrupt:
        messages().print(f"{job_id} is still running; `tinyclip-client jobs watch {job_id}` follows it again", markup=False)
        raise typer.Exit(130) from None
    code = conclude(out, job, teacher)
    if as_json:
        send(client, calls.get(job_id), display.show_job, as_json)
    raise typer.Exit(code)


def _label(pair: str) -> tuple[str, str]:
    key, colon, value = pair.partition(":")
    if not colon:
        raise InputError(f"--label {pair}", "write it as KEY:VALUE")
    return key, value
