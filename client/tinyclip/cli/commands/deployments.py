"""`tinyclip-client deployments …`."""

from typing import Annotated, get_args

import typer

from tinyclip._resources import deployments as calls
from tinyclip.cli.display.console import console, messages, new_table, print_next_page, print_table
from tinyclip.cli.display.numbers import MISSING, percent
from tinyclip.cli.problems import FAILED
from tinyclip.cli.session import AsJson, NoWait, PageSize, PageToken, Timeout, connect, run, send
from tinyclip.schemas import Deployment, DeploymentState, EngineName, Latency, Page, Traffic

app = typer.Typer(help="Create, list and delete deployments on Ray Serve.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The deployment.")]


@app.command()
def create(
    context: typer.Context,
    name: Name,
    model: Annotated[str, typer.Option(help="The model version, for example emoji@best.")],
    canary: Annotated[str | None, typer.Option(help="Another version of the model, for a share of the queries.")] = None,
    canary_weight: Annotated[float, typer.Option(help="The canary's share of the queries.")] = 0.1,
    also: Annotated[list[str] | None, typer.Option(help="A further model for the same replicas; may be repeated.")] = None,
    resident: Annotated[int, typer.Option(min=1, help="How many of the further models a replica keeps in memory.")] = 4,
    min_replicas: Annotated[int, typer.Option(min=1)] = 1,
    max_replicas: Annotated[int | None, typer.Option(min=1, help="By default as many as --min-replicas.")] = None,
    engine: Annotated[str, typer.Option(help=f"The inference engine: {', '.join(get_args(EngineName))}.")] = "auto",
    no_wait: NoWait = False,
    timeout: Timeout = 600.0,
    as_json: AsJson = False,
) -> None:
    """Create or update a deployment."""
    put = calls.put(
        name, model, canary=canary, canary_weight=canary_weight, models=also or (), resident=resident,
        min_replicas=min_replicas, max_replicas=max_replicas, engine=engine,
    )  # fmt: skip
    with connect(context) as client:
        if no_wait:
            send(client, put, _show, as_json)
            return
        client.send(put)
        with messages().status(f"{name} is deploying {model}"):
            settled = client.deployments.wait(name, timeout=timeout)
        send(client, calls.get(name), _show, as_json)
        raise typer.Exit(0 if settled.state is DeploymentState.READY else FAILED)


@app.command("list")
def list_(context: typer.Context, page_size: PageSize = 50, page_token: PageToken = None, as_json: AsJson = False) -> None:
    """List deployments."""
    run(context, calls.page(page_size=page_size, page_token=page_token), _show_page, as_json)


@app.command()
def get(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show a deployment."""
    run(context, calls.get(name), _show, as_json)


@app.command()
def delete(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Delete a deployment."""
    run(context, calls.delete(name), _show, as_json)


@app.command()
def traffic(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show a deployment's requests, latencies and replicas."""
    run(context, calls.traffic(name), _show_traffic, as_json)


def _show(deployment: Deployment) -> None:
    message = f": {deployment.message}" if deployment.message else ""
    canary = f" with {deployment.canary.weight:.0%} for {deployment.canary.model}" if deployment.canary else ""
    line = f"{deployment.name} {deployment.model}{canary} {deployment.state}{message}"
    where = f" at {deployment.endpoint}" if deployment.state is DeploymentState.READY else ""
    console().print(line + where, markup=False)


def _show_page(page: Page[Deployment]) -> None:
    out = console()
    table = new_table(out, "name", "model", "state", "replicas", "endpoint", "message")
    for item in page.items:
        replicas = f"{item.replicas.min}-{item.replicas.max}"
        table.add_row(item.name, item.model, item.state, replicas, item.endpoint, item.message)
    print_table(out, table)
    print_next_page(out, page.next_page_token)


def _show_traffic(traffic: Traffic) -> None:
    out = console()
    texts, waiting = traffic.cached_texts, sum(traffic.waiting.values())
    cached = "" if texts.hit_rate is None else f", {percent(texts.hit_rate)}% of {texts.hits + texts.misses} texts cached"
    out.print(f"{traffic.deployment}: {traffic.queries} queries, {waiting} items waiting{cached}", markup=False)
    numbers = ("requests", "mean ms", "p50", "p95", "p99")
    routes = new_table(out, "route", "phase", *numbers, right=numbers)
    for route in traffic.routes:
        routes.add_row(route.route, "", *_times(route))
        for phase in traffic.phases:
            if phase.route == route.route:
                routes.add_row("", phase.phase, *_times(phase))
    models = new_table(out, "model", "queries", "share %", right=("queries", "share %"))
    for model in traffic.models:
        models.add_row(model.model, str(model.requests), percent(model.share))
    batches = new_table(out, "batches of", "batches", "mean items", right=("batches", "mean items"))
    for batch in traffic.batches:
        batches.add_row(batch.kind, str(batch.batches), _number(batch.mean))
    replicas = new_table(out, "replica", "state", "node", "queries", "mean ms", right=("queries", "mean ms"))
    for one in traffic.replicas:
        queries = MISSING if one.requests is None else str(one.requests)
        replicas.add_row(one.id, one.state, one.node_ip or MISSING, queries, _number(one.mean_ms))
    for table in (routes, models, batches, replicas):
        if table.row_count:
            print_table(out, table)
    if traffic.unreachable:
        out.print(f"without the replicas on {', '.join(traffic.unreachable)}, which do not answer", markup=False)


def _times(times: Latency) -> list[str]:
    return [str(times.count), *(_number(value) for value in (times.mean_ms, times.p50_ms, times.p95_ms, times.p99_ms))]


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3g}"
