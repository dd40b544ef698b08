"""Progress of waits and uploads, on standard error: bars on a terminal; elsewhere nothing, or a few lines."""

import contextlib
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from tinyclip._http.uploads import OnProgress
from tinyclip.cli.display.console import messages

_MB = 1_000_000


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float], None]]:
    """Show a bar, on a terminal only; the function that is yielded sets the fraction that is done."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TextColumn("{task.percentage:.0f}%"))
    out = messages()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bars:
        bar = bars.add_task(title, total=1.0)
        yield lambda fraction: bars.update(bar, completed=fraction)


@contextlib.contextmanager
def upload_progress(name: str) -> Iterator[OnProgress]:
    """Show how much of a file is sent. How far the server has read it is not known."""
    out = messages()
    if not out.is_terminal:
        yield _UploadLines(name)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=out, transient=True) as bars:
        task = bars.add_task(name, total=None)

        def show(sent: int, total: int) -> None:
            bars.update(task, completed=sent, total=total, description=name if sent < total else f"{name}: being imported")

        yield show


class _UploadLines:
    """Prints a line at each quarter of an upload."""

    def __init__(self, name: str) -> None:
        self._name, self._last_quarter = name, -1

    def __call__(self, sent: int, total: int) -> None:
        quarter = 4 * sent // max(total, 1)
        if quarter == self._last_quarter:
            return
        self._last_quarter = quarter
        end = "; being imported" if sent >= total else ""
        messages().print(f"{self._name}: {sent / _MB:.1f} of {total / _MB:.1f} MB sent{end}", markup=False)
