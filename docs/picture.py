"""Run a command in a terminal of its own and save the final screen as an SVG, such as docs/demo.svg.

    python docs/picture.py docs/demo.svg make demo
"""

import codecs
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Iterator
from html import escape
from pathlib import Path

from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import DIMMED_MONOKAI as THEME
from rich.text import Text

COLUMNS, ROWS = 118, 50
CELL_WIDTH, LINE_HEIGHT, FONT_SIZE, MARGIN = 8.4, 18, 14, 16
INK, PAPER = "#c5c8c6", "#1c1c1c"
CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r\n|\r|\n")


def main(target: Path, command: list[str]) -> int:
    status, output = record(command)
    target.write_text(svg([f"\x1b[1m$ {' '.join(command)}\x1b[0m", *final_lines(output)]))
    return status


def record(command: list[str]) -> tuple[int, str]:
    """Return the exit status and the output of the command, which is also copied to standard output."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    output = b""
    while chunk := _read(terminal):
        sys.stdout.buffer.write(chunk)
        sys.stdout.flush()
        output += chunk
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), codecs.decode(output, errors="replace")


def final_lines(output: str) -> list[str]:
    """Return the final screen: lines that were redrawn count once; colours are kept."""
    lines, row, fresh, position = [""], 0, False, 0
    for found in [*CONTROL.finditer(output), None]:
        text = output[position : found.start() if found else None]
        if text:
            lines[row] = text if fresh else lines[row] + text
            fresh = False
        if found is None:
            break
        position = found.end()
        count, kind = found[1], found[2] or found[0]
        if kind == "m":
            lines[row] += found[0]
        elif kind == "A":
            row = max(0, row - int(count or 1))
        elif kind == "K":
            lines[row] = ""
        elif kind == "\r":
            fresh = True
        elif kind in ("\n", "\r\n"):
            row, fresh = row + 1, False
            lines += [""] * (row + 1 - len(lines))
    return "\n".join(lines).rstrip().splitlines()


def svg(lines: list[str]) -> str:
    """Return coloured lines as an SVG. Half blocks are drawn as rectangles, because fonts have gaps between them."""
    console = Console(width=COLUMNS, force_terminal=True, color_system="truecolor")
    rows = [row for line in lines for row in console.render_lines(Text.from_ansi(line), pad=False)]
    drawn = "\n".join(part for number, row in enumerate(rows) for part in _row(row, MARGIN + number * LINE_HEIGHT))
    width, height = 2 * MARGIN + COLUMNS * CELL_WIDTH, 2 * MARGIN + len(rows) * LINE_HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" xml:space="preserve" '
        f'font-size="{FONT_SIZE}" font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" fill="{INK}">\n'
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>\n{drawn}\n</svg>\n'
    )


def _row(row: list[Segment], top: float) -> Iterator[str]:
    left: float = MARGIN
    for segment in row:
        style, width = segment.style or Style(), cell_len(segment.text) * CELL_WIDTH
        ink, paper = _hex(style.color), _hex(style.bgcolor)
        if segment.text and not segment.text.strip("▀"):
            yield _rectangle(left, top, width, LINE_HEIGHT / 2, ink or INK)
            yield _rectangle(left, top + LINE_HEIGHT / 2, width, LINE_HEIGHT / 2, paper or PAPER)
        elif segment.text.strip():
            weight = ' font-weight="bold"' if style.bold else ""
            faint = ' opacity="0.6"' if style.dim else ""
            fill = f' fill="{ink}"' if ink else ""
            yield (
                f'<text x="{left:.1f}" y="{top + FONT_SIZE:g}" textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs"'
                f"{weight}{faint}{fill}>{escape(segment.text)}</text>"
            )
        left += width


def _rectangle(left: float, top: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{left:.1f}" y="{top:g}" width="{width:.1f}" height="{height:g}" fill="{fill}"/>'


def _hex(color: Color | None) -> str | None:
    return None if color is None or color.is_default else color.get_truecolor(THEME).hex


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # raised by Linux at the end of a terminal
        return b""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
