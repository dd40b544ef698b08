"""An upload as it is seen: a bar on a terminal, a few lines elsewhere."""

import contextlib
from collections.abc import Iterator

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from tinyclip._http.uploads import OnProgress
from tinyclip.cli._session import messages

_MB = 1_000_000


@contextlib.contextmanager
def upload_bar(name: str) -> Iterator[OnProgress]:
    """Shows how much of a file is sent, on standard error; the server's reading of it has no measure."""
    out = messages()
    if not out.is_terminal:
        yield _Lines(name)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=out, transient=True) as bars:
        task = bars.add_task(name, total=None)

        def show(sent: int, total: int) -> None:
            bars.update(task, completed=sent, total=total, description=name if sent < total else f"{name}: being imported")

        yield show


class _Lines:
    """One line at each quarter, and one when all is sent."""

    def __init__(self, name: str) -> None:
        self._name, self._told = name, -1

    def __call__(self, sent: int, total: int) -> None:
        quarter = 4 * sent // max(total, 1)
        if quarter == self._told:
            return
        self._told = quarter
        end = "; being imported" if sent >= total else ""
        messages().print(f"{self._name}: {sent / _MB:.1f} of {total / _MB:.1f} MB sent{end}", markup=False)
