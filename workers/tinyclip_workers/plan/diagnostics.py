"""The errors and warnings of a plan, and the steps in which it is made."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinyclip.schemas import FieldError

from tinyclip_workers.data.samples import printable

MAX_MESSAGE = 2000
"""Limit of the characters of a message, which may quote names in shards."""


@dataclass
class Diagnostics:
    """Errors, for which the spec is refused, and warnings, which the plan shows.

    Messages repeat no content of files that a user names, only names, numbers and places in them.
    """

    errors: list[FieldError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    on_step: Callable[[str, Any, str], None] = lambda pointer, value, what: None
    """Called with the field, its value and a description before each step that may take long."""

    def begin(self, pointer: str, value: Any, what: str) -> None:
        """Report the step that begins: if the plan takes too long, the error names it."""
        self.on_step(pointer, value, what)

    def error(self, pointer: str, value: Any, message: str) -> None:
        value = printable(value) if isinstance(value, str) else value
        self.errors.append(FieldError(pointer=pointer, value=value, message=printable(message, MAX_MESSAGE)))

    def warn(self, message: str) -> None:
        message = printable(message, MAX_MESSAGE)
        if message not in self.warnings:
            self.warnings.append(message)
