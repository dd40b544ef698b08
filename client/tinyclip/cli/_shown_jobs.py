"""Jobs, plans, events, log lines and metrics as a shell shows them."""

from rich.text import Text

from tinyclip.cli._numbers import count, curve, duration, number
from tinyclip.cli._session import console, more, print_table, table
from tinyclip.cli._summary import plan_table
from tinyclip.schemas import Checkpoint, Event, Job, LogLine, Metrics, Page, Plan


def show_job(job: Job) -> None:
    progress = job.progress
    under_way = not job.state.terminal and progress.step > 0
    how_far = f"  {100 * progress.fraction:.0f}%  eta {duration(progress.eta_seconds)}" if under_way else ""
    again = f"  goes on from {job.retry_of}" if job.retry_of and not job.state.terminal else ""
    console().print(f"{job.id} {job.name} {job.state}{how_far}{again}", markup=False)


def show_jobs(page: Page[Job]) -> None:
    out = console()
    made = table(out, "id", "name", "state", "done", "stage", "model", "created", right=("done",))
    for job in page.items:
        model = f"{job.model.name}@{job.model.version}" if job.model else ""
        stage = f"{job.progress.stage + 1}/{len(job.stages)}"
        created = job.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        made.add_row(job.id, job.name, job.state, f"{100 * job.progress.fraction:.0f}%", stage, model, created)
    print_table(out, made)
    more(out, page.next_page_token)


def show_plan(plan: Plan) -> None:
    out = console()
    print_table(out, plan_table(out, plan))
    cost = f"{plan.steps} steps on {plan.device}, about {plan.device_hours:.3g} device-hours"
    out.print(f"{cost}; {plan.samples_per_epoch} pairs an epoch")
    for warning in plan.warnings:
        out.print(f"warning: {warning}", markup=False)


def show_events(page: Page[Event]) -> None:
    for event in page.items:
        show_event(event)
    more(console(), page.next_page_token)


def show_event(event: Event) -> None:
    stage = "" if event.stage is None else f" stage {event.stage + 1}"
    numbers = {name: value for name, value in event.data.items() if isinstance(value, int | float)}
    said = event.message or ", ".join(f"{name} {number(value)}" for name, value in numbers.items())
    console().print(Text(f"{event.id:>5} {event.created_at.astimezone():%H:%M:%S} {event.type}{stage} {said}".rstrip()))


def show_log_lines(page: Page[LogLine]) -> None:
    for line in page.items:
        show_log_line(line)


def show_log_line(line: LogLine) -> None:
    console().print(Text(f"{line.created_at.astimezone():%H:%M:%S} {line.level:<7} {line.source}: {line.message}"))


def show_metrics(metrics: Metrics) -> None:
    out = console()
    numbers = ("stage", "step", "first", "last", "least", "most")
    made = table(out, "series", *numbers, "curve", right=numbers)
    for name, points in metrics.series.items():
        for stage in sorted({point.stage for point in points}):
            values = [point.value for point in points if point.stage == stage]
            last_step = max(point.step for point in points if point.stage == stage)
            shown = (values[0], values[-1], min(values), max(values))
            made.add_row(name, str(stage + 1), str(last_step), *map(number, shown), curve(values))
    print_table(out, made)


def show_checkpoints(page: Page[Checkpoint]) -> None:
    out = console()
    made = table(out, "stage", "step", "attempt", "size", "written", "path", right=("stage", "step", "attempt", "size"))
    for one in page.items:
        attempt = str(one.attempt) if one.attempt else "adopted"
        size = "" if one.bytes is None else f"{count(one.bytes)}B"
        written = one.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        made.add_row(str(one.stage + 1), str(one.step), attempt, size, written, one.path)
    print_table(out, made)
    more(out, page.next_page_token)
