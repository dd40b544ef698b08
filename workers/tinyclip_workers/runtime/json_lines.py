"""The answers of a process that is asked through its stdin and stdout: one JSON document a line, and nothing between them."""

import json
import os
import sys
from typing import IO, Any


def take_stdout() -> IO[str]:
    """The real stdout for answers alone; whatever else prints there, in Python or below it, goes to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout = sys.stderr
    return answers


def write_answer(answers: IO[str], message: dict[str, Any]) -> None:
    """One line, sent at once."""
    answers.write(json.dumps(message) + "\n")
    answers.flush()
