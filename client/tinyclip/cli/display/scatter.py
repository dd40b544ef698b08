"""Scatter charts of characters, for terminals and for plain text."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

_LOGARITHMIC = 8.0
"""An axis whose largest value is as many times the smallest is logarithmic."""
_MARGIN = 0.04
"""Free space beside the outermost values, as a share of the axis."""
_HEIGHT = 14


@dataclass(frozen=True)
class Mark:
    """A point of a chart. Later marks cover earlier ones."""

    x: float
    y: float
    sign: str
    style: str = ""


@dataclass(frozen=True)
class Frame:
    """The characters of axes and limits."""

    vertical: str
    horizontal: str
    corner: str
    limit_x: str
    limit_y: str


ASCII = Frame("|", "-", "+", ":", ".")
LINES = Frame("│", "─", "└", "┆", "╌")


@dataclass(frozen=True)
class Axis:
    """A range of values along cells."""

    low: float
    high: float
    cells: int
    is_log: bool
    write: Callable[[float], str]

    @classmethod
    def of(cls, values: Sequence[float], cells: int, write: Callable[[float], str], *, may_be_log: bool) -> "Axis":
        low, high = min(values), max(values)
        is_log = may_be_log and low > 0 and high / low > _LOGARITHMIC
        low, high = (math.log(low), math.log(high)) if is_log else (low, high)
        margin = _MARGIN * (high - low) or abs(low) * _MARGIN or 1.0
        lowest = low - margin if is_log or low < 0 else max(0.0, low - margin)
        return cls(lowest, high + margin, cells, is_log, write)

    def place(self, value: float) -> int:
        position = math.log(value) if self.is_log else value
        return min(self.cells - 1, max(0, int((position - self.low) / (self.high - self.low) * self.cells)))

    def label(self, cell: int) -> str:
        """Return the value at the middle of a cell."""
        position = self.low + (cell + 0.5) / self.cells * (self.high - self.low)
        return self.write(math.exp(position) if self.is_log else position)


def scatter(
    marks: Sequence[Mark], *, width: int, frame: Frame, x_label: Callable[[float], str], y_label: Callable[[float], str],
    x_limit: float | None = None, y_limit: float | None = None,
) -> Text:  # fmt: skip
    """Draw marks in so many columns, with a line at the limit of each axis."""
    ys = Axis.of(_with([mark.y for mark in marks], y_limit), _HEIGHT, y_label, may_be_log=False)
    labels = {cell: ys.label(cell) for cell in (0, _HEIGHT // 2, _HEIGHT - 1)}
    edge = max(map(len, labels.values()))
    xs = Axis.of(_with([mark.x for mark in marks], x_limit), max(20, width - edge - 2), x_label, may_be_log=True)
    grid = [[(" ", "")] * xs.cells for _ in range(_HEIGHT)]
    if y_limit is not None:
        grid[ys.place(y_limit)] = [(frame.limit_y, "red")] * xs.cells
    if x_limit is not None:
        for row in grid:
            row[xs.place(x_limit)] = (frame.limit_x, "red")
    for mark in marks:
        grid[ys.place(mark.y)][xs.place(mark.x)] = (mark.sign, mark.style)
    chart = Text(no_wrap=True)
    for cell in reversed(range(_HEIGHT)):
        chart.append(f"{labels.get(cell, ''):>{edge}} {frame.vertical}")
        chart.append_text(_row(grid[cell]))
    chart.append(f"{'':>{edge}} {frame.corner}{frame.horizontal * xs.cells}\n{'':>{edge + 2}}{_ticks(xs)}")
    return chart


def _with(values: list[float], limit: float | None) -> list[float]:
    return values if limit is None else [*values, limit]


def _row(cells: Iterable[tuple[str, str]]) -> Text:
    row = Text()
    for sign, style in cells:
        row.append(sign, style=style or None)
    row.rstrip()
    return row.append("\n")


def _ticks(axis: Axis) -> str:
    """Return the values at the left end, the middle and the right end."""
    left, middle, right = (axis.label(cell) for cell in (0, axis.cells // 2, axis.cells - 1))
    half = max(len(left) + 1, axis.cells // 2 - len(middle) // 2)
    return f"{f'{left:<{half}}{middle}':<{axis.cells - len(right)}}{right}".rstrip()
