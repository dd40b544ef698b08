"""The embedded service for the duration of an example: started in a temporary folder, and stopped at its end."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from service import BIN, Service, ServiceFailed
from tinyclip import TinyClipError

console = Console(highlight=False)


class ExampleFailed(Exception):
    """A failed step of an example."""


def run_with_service(name: str, run: Callable[[str], None], *, keep: bool) -> int:
    """Start the service, run an example with its address, and stop it. Return the exit status.

    `name`: that of the example in messages and of its command, `make NAME`. `keep`: run the service until Ctrl-C afterwards.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix=f"tinyclip-{name}-"))
    service = Service(folder)
    try:
        console.print("[bold]Starting the service[/]")
        with service:
            console.print("\n".join(service.greeting()), markup=False)
            run(service.url)
            if keep:
                _wait_for_interrupt(service)
            else:
                console.print(f"\nThe console was at {service.url}; `make {name} KEEP=1` keeps it running.")
            console.print("\n[bold]Stopping[/]")
    except KeyboardInterrupt:
        console.print("\nInterrupted; everything is stopped.")
        shutil.rmtree(folder, ignore_errors=True)
        return 130
    except (ExampleFailed, ServiceFailed, TinyClipError, subprocess.TimeoutExpired) as failure:
        console.print(service.log_ends(), markup=False)
        console.print(f"\n[red]The {name} failed:[/] {escape(str(failure))}\nEverything it wrote is in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def call(url: str, *arguments: str | Path) -> None:
    """Run a command of the client, which prints its progress and its result. Raises ExampleFailed."""
    words = [shown(each) if isinstance(each, Path) else each for each in arguments]
    console.print(f"\n[bold]tinyclip-client {' '.join(words)}[/]", soft_wrap=True)
    status = subprocess.call([BIN / "tinyclip-client", *arguments], env=os.environ | {"TINYCLIP_URL": url})
    if status != 0:
        raise ExampleFailed(f"tinyclip-client {words[0]} {words[1]} exited with {status}")


def shown(path: Path) -> str:
    """Return a path as a user would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _wait_for_interrupt(service: Service) -> None:
    """Wait for Ctrl-C, or for the end of the service. Raises ServiceFailed."""
    console.print(f"\n[bold]The console is at {service.url}[/]\nPress Ctrl-C to stop the service; its folder is removed then.")
    with contextlib.suppress(KeyboardInterrupt):
        service.wait()
        raise ServiceFailed("the service has ended by itself")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
