"""Runs a command in a terminal of its own and saves what stands there at the end as an SVG: how docs/demo.svg was made.

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
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 118, 50
CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r\n|\r|\n")


def main(target: Path, command: list[str]) -> int:
    status, output = record(command)
    shown = f"$ {' '.join(command)}\n" + "\n".join(final_lines(output))
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi(shown))
    target.write_text(console.export_svg(title=" ".join(command)))
    return status


def record(command: list[str]) -> tuple[int, str]:
    """Exit status and everything the command printed, which is shown here as well."""
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
    """What is left on the screen after every line that was drawn over; colours are kept."""
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


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux ends a terminal like this
        return b""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
