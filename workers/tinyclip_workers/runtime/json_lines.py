"""The answers of a helper process on its standard output: one JSON document a line, and nothing else."""

import json
import os
import sys
from typing import IO, Any


def take_stdout() -> IO[str]:
    """Return the real stdout for the answers, and redirect all other output to stderr, also that of native code."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout = sys.stderr
    return answers


def write_answer(answers: IO[str], message: dict[str, Any]) -> None:
    """Write one line and flush it."""
    answers.write(json.dumps(message) + "\n")
    answers.flush()
