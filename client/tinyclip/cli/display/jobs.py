"""Jobs, plans, events, log lines, metrics and checkpoints."""

from tinyclip.cli.display.console import console, new_table, print_next_page, print_table, short_time
from tinyclip.cli.display.numbers import count, curve, duration, number
from tinyclip.cli.display.summary import plan_table
from tinyclip.schemas import Checkpoint, Event, Job, LogLine, Metrics, NamedPoint, Page, Plan


def show_job(job: Job) -> None:
    progress = job.progress
    under_way = not job.state.terminal and progress.step > 0
    done = f"  {100 * progress.fraction:.0f}%  eta {duration(progress.eta_seconds)}" if under_way else ""
    waiting = f"  {progress.waiting}" if progress.waiting else ""
    origin = f"  continues {job.retry_of}" if job.retry_of and not job.state.terminal else ""
    console().print(f"{job.id} {job.name} {job.state}{done}{waiting}{origin}", markup=False)


def show_jobs(page: Page[Job]) -> None:
    out = console()
    table = new_table(out, "id", "name", "state", "done", "stage", "model", "created", right=("done",))
    for job in page.items:
        model = f"{job.model.name}@{job.model.version}" if job.model else ""
        stage = f"{job.progress.stage + 1}/{len(job.stages)}"
        created = short_time(out, job.created_at)
        table.add_row(job.id, job.name, job.state, f"{100 * job.progress.fraction:.0f}%", stage, model, created)
    print_table(out, table)
    print_next_page(out, page.next_page_token)


def show_plan(plan: Plan) -> None:
    out = console()
    print_table(out, plan_table(out, plan))
    saved = f" ({plan.saved_device_hours:.3g} saved by the reinforcement)" if plan.saved_device_hours else ""
    cost = f"{plan.steps} steps on {plan.device}, about {plan.device_hours:.3g} device-hours{saved}"
    out.print(f"{cost}; {plan.samples_per_epoch} pairs an epoch")
    for warning in plan.warnings:
        out.print(f"warning: {warning}", markup=False)


def show_events(page: Page[Event]) -> None:
    for event in page.items:
        show_event(event)
    print_next_page(console(), page.next_page_token)


def show_event(event: Event) -> None:
    stage = "" if event.stage is None else f" stage {event.stage + 1}"
    numbers = {name: value for name, value in event.data.items() if isinstance(value, int | float)}
    text = event.message or ", ".join(f"{name} {number(value)}" for name, value in numbers.items())
    line = f"{event.id:>5} {event.created_at.astimezone():%H:%M:%S} {event.type}{stage} {text}".rstrip()
    console().print(line, markup=False)


def show_log_lines(page: Page[LogLine]) -> None:
    for line in page.items:
        show_log_line(line)


def show_log_line(line: LogLine) -> None:
    console().print(f"{line.created_at.astimezone():%H:%M:%S} {line.level:<7} {line.source}: {line.message}", markup=False)


def show_metric_point(point: NamedPoint) -> None:
    console().print(f"stage {point.stage + 1} step {point.step} {point.name} {number(point.value)}", markup=False)


def show_metrics(metrics: Metrics) -> None:
    out = console()
    numbers = ("stage", "step", "first", "last", "least", "most")
    table = new_table(out, "series", *numbers, "curve", right=numbers)
    width = 24 if out.width >= 100 else 8
    for name, points in metrics.series.items():
        for stage in sorted({point.stage for point in points}):
            values = [point.value for point in points if point.stage == stage]
            last_step = max(point.step for point in points if point.stage == stage)
            summary = (values[0], values[-1], min(values), max(values))
            table.add_row(name, str(stage + 1), str(last_step), *map(number, summary), curve(values, width))
    print_table(out, table)


def show_checkpoints(page: Page[Checkpoint]) -> None:
    out = console()
    table = new_table(out, "stage", "step", "attempt", "size", "written", "path", right=("stage", "step", "attempt", "size"))
    for checkpoint in page.items:
        attempt = str(checkpoint.attempt) if checkpoint.attempt else "adopted"
        size = "" if checkpoint.bytes is None else f"{count(checkpoint.bytes)}B"
        written = short_time(out, checkpoint.created_at)
        table.add_row(str(checkpoint.stage + 1), str(checkpoint.step), attempt, size, written, checkpoint.path)
    print_table(out, table)
    print_next_page(out, page.next_page_token)
