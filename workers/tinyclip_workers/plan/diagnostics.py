"""The errors and warnings of a plan."""

from dataclasses import dataclass, field
from typing import Any

from tinyclip.schemas import FieldError


@dataclass
class Diagnostics:
    """Errors, for which the spec is refused, and warnings, which the plan shows."""

    errors: list[FieldError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def error(self, pointer: str, value: Any, message: str) -> None:
        self.errors.append(FieldError(pointer=pointer, value=value, message=message))

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
