"""`tinyclip-server`: run and check the service, migrate its database, create tokens."""

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from tinyclip.errors import MissingExtra

if TYPE_CHECKING:
    from tinyclip_server.local.checks.result import Check
    from tinyclip_server.settings import Settings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

ENGINE = ("ray", "torch", "open_clip", "webdataset")


@app.callback()
def _about() -> None:
    """Run TinyCLIP's control plane. Settings: flags, then TINYCLIP_* variables, then ~/.config/tinyclip/server.toml."""


@app.command()
def up(
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database, artifacts and logs.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of the API and of deployments.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.")] = None,
    serve_port: Annotated[int | None, typer.Option(help="Port of deployments.")] = None,
) -> None:
    """Start the service on this machine, in the foreground, until SIGINT or SIGTERM."""
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
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database, artifacts and logs.")] = None,
    to: Annotated[str | None, typer.Option(help="Revision; default: the newest. An older one drops later additions.")] = None,
) -> None:
    """Migrate the database to the newest revision. Concurrent migrations wait for each other."""
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
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database, artifacts and logs.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of the API and of deployments.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.")] = None,
    serve_port: Annotated[int | None, typer.Option(help="Port of deployments.")] = None,
    wait: Annotated[float, typer.Option(help="Repeat failing checks for this many seconds, while Ray is starting.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as a JSON list.")] = False,
) -> None:
    """Check everything that a server with these settings needs. Exit with status 1 if a check fails."""
    from tinyclip_server.local.doctor import examine_until_passed

    checks = asyncio.run(examine_until_passed(_settings(data_dir=data_dir, host=host, port=port, serve_port=serve_port), wait))
    if as_json:
        print(json.dumps([check.model_dump(by_alias=True) for check in checks], indent=2))
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
        message = Text(check.message)
        if check.hint:
            message.append(f"\n-> {check.hint}", style="bold")
        table.add_row(Text(check.result, style=style), check.name, message)
    Console().print(table)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Folder to write; it must not exist yet.")],
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database, artifacts and logs.")] = None,
) -> None:
    """Back up an embedded service, which may run: its database and its artifacts."""
    from tinyclip_server.local.backup import CannotBackUp, back_up

    try:
        copied = back_up(_settings(data_dir=data_dir), folder)
    except (CannotBackUp, OSError) as error:
        _stop_with(str(error))
    typer.echo(f"{folder}: {copied.files:,} files, {copied.bytes / (1 << 20):,.1f} MiB")
    _stop_if_missing(copied.missing)


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="A backup.")],
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the restored service, without data so far.")] = None,
) -> None:
    """Restore an embedded service from a backup. It must not run, and must have no data."""
    from tinyclip_server.local.backup import CannotBackUp, restore

    settings = _settings(data_dir=data_dir)
    try:
        copied = restore(settings, folder)
    except (CannotBackUp, OSError) as error:
        _stop_with(str(error))
    typer.echo("\n".join([*copied.changed, f"{settings.data_dir}: {copied.files:,} files, {copied.bytes / (1 << 20):,.1f} MiB"]))
    _stop_if_missing(copied.missing)


@app.command()
def reconcile(
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database, artifacts and logs.")] = None,
    take_over: Annotated[bool, typer.Option("--take-over", help="Make this database the owner of the artifacts.")] = False,
) -> None:
    """Bring a restored database up to the restored artifacts. No server may run. `restore` does this itself."""
    from tinyclip_server.local.reconcile import CannotReconcile, reconcile_service

    try:
        outcome = asyncio.run(reconcile_service(_settings(data_dir=data_dir), take_over=take_over))
    except CannotReconcile as error:
        _stop_with(str(error))
    for line in outcome.changed:
        typer.echo(line)
    if outcome.unknown:
        _stop_with(f"remove these folders of models that the database does not know: {', '.join(outcome.unknown)}")
    _stop_if_missing(outcome.missing)
    typer.echo("database and artifacts agree")


def _stop_if_missing(missing: list[str]) -> None:
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5:,} more" if len(missing) > 5 else "")
        _stop_with(f"the database names {len(missing):,} files that the artifacts do not contain: {shown}")


@app.command()
def create_token(
    scope: Annotated[list[str], typer.Option(help="read, write, infer, admin or metrics; repeatable.")],
    name: Annotated[str, typer.Option(help="Purpose or owner of the token.")] = "made at the shell",
    project: Annotated[str, typer.Option(help="Project of the token; created if it is new.")] = "default",
    days: Annotated[int, typer.Option(help="Days until it expires; 0: never.")] = 90,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database, artifacts and logs.")] = None,
) -> None:
    """Create a token in the database: the first one, or one of a new project. It is printed once and not stored."""
    from tinyclip_server.database.migrate import CannotMigrate, WrongRevision
    from tinyclip_server.tokens.shell import InvalidTokenOption, create_token

    settings = _settings(data_dir=data_dir)
    try:
        made = asyncio.run(create_token(settings, name=name, project=project, scopes=scope, days=days or None))
    except (InvalidTokenOption, WrongRevision, CannotMigrate) as error:
        _stop_with(str(error))
    until = f"until {made.expires_at:%Y-%m-%d}" if made.expires_at else "no expiry"
    typer.echo(f"{made.id}: {', '.join(made.scopes)} in project {made.project}, {until}; shown only now:", err=True)
    typer.echo(made.token)


def main() -> None:
    """Run the command. For a missing extra, print the command that installs it."""
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
