"""`tinyclip-server`: run the service, migrate its database."""

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from tinyclip.errors import MissingExtra

if TYPE_CHECKING:
    from tinyclip_server.local.doctor import Check
    from tinyclip_server.settings import Settings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

ENGINE = ("ray", "torch", "open_clip", "webdataset")


@app.callback()
def _about() -> None:
    """TinyCLIP's control plane. Settings: these flags, then TINYCLIP_* variables, then ~/.config/tinyclip/server.toml."""


@app.command()
def up(
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of the API and of deployments.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.")] = None,
    serve_port: Annotated[int | None, typer.Option(help="Port of deployments.")] = None,
) -> None:
    """Run the whole service on this machine, in the foreground, until SIGINT or SIGTERM."""
    from tinyclip_server.local.supervisor import CannotStart
    from tinyclip_server.local.supervisor import up as run

    settings = _settings(data_dir=data_dir, host=host, port=port, serve_port=serve_port)
    if settings.embedded:
        for module in ENGINE:
            if importlib.util.find_spec(module) is None:
                raise MissingExtra("all", module)
    try:
        run(settings)
    except CannotStart as error:
        _stop_with(str(error))


@app.command()
def migrate(
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.")] = None,
    to: Annotated[str | None, typer.Option(help="Another revision than the newest; an older one drops what came later.")] = None,
) -> None:
    """Bring the database to the newest revision. Several at once wait for each other."""
    from tinyclip_server.database.migrate import CannotMigrate, WrongRevision, go_to, head

    settings = _settings(data_dir=data_dir)
    revision = to or head()
    try:
        asyncio.run(go_to(settings.async_database_url, revision))
    except (CannotMigrate, WrongRevision) as error:
        _stop_with(str(error))
    typer.echo(f"the database is at revision {revision}")


@app.command()
def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of the API and of deployments.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.")] = None,
    serve_port: Annotated[int | None, typer.Option(help="Port of deployments.")] = None,
    wait: Annotated[float, typer.Option(help="Seconds to look again in while something fails, as a Ray that is starting.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects and nothing else.")] = False,
) -> None:
    """Look at all that a server with these settings needs. Exits with 1 if something would keep it from working."""
    from tinyclip_server.local.doctor import examine_patiently

    checks = asyncio.run(examine_patiently(_settings(data_dir=data_dir, host=host, port=port, serve_port=serve_port), wait))
    if as_json:
        print(json.dumps([check.model_dump() for check in checks], indent=2))
    else:
        _show(checks)
    raise SystemExit(any(check.result == "fail" for check in checks))


def _show(checks: "list[Check]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "", "", box=None, show_header=False, pad_edge=False)
    for check in checks:
        style = {"ok": "green", "warn": "yellow", "fail": "bold red"}[check.result]
        told = Text(check.message)
        if check.way_out:
            told.append(f"\n-> {check.way_out}", style="bold")
        table.add_row(Text(check.result, style=style), check.name, told)
    Console().print(table)


@app.command()
def create_token(
    scope: Annotated[list[str], typer.Option(help="read, write, infer, admin or metrics; may be repeated.")],
    name: Annotated[str, typer.Option(help="What it is for, or who has it.")] = "made at the shell",
    project: Annotated[str, typer.Option(help="The project it belongs to; a new name begins a new one.")] = "default",
    days: Annotated[int, typer.Option(help="How long it is valid; 0 for ever.")] = 90,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.")] = None,
) -> None:
    """Make a token, straight in the database: the first one, or one of a new project. It is printed once and kept nowhere."""
    from tinyclip_server.tokens.shell import InvalidTokenOption, create_token

    settings = _settings(data_dir=data_dir)
    try:
        made = asyncio.run(create_token(settings, name=name, project=project, scopes=scope, days=days or None))
    except InvalidTokenOption as error:
        _stop_with(str(error))
    until = f"until {made.expires_at:%Y-%m-%d}" if made.expires_at else "for ever"
    typer.echo(f"{made.id}: {', '.join(made.scopes)} in project {made.project}, {until}; shown only now:", err=True)
    typer.echo(made.token)


def main() -> None:
    """The command's entry: a missing extra is said with the command that installs it."""
    try:
        app()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tinyclip"):
            raise
        _stop_with(str(MissingExtra("server", error.name or "a package")))
    except MissingExtra as error:
        _stop_with(str(error))


def _settings(**flags: Any) -> "Settings":
    from pydantic import ValidationError

    from tinyclip_server.settings import Settings

    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        _stop_with("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()))


def _stop_with(message: str) -> NoReturn:
    print(f"tinyclip-server: {message}", file=sys.stderr)
    raise SystemExit(1)
