"""The result of a check."""

from typing import Literal

from pydantic import BaseModel, Field

Result = Literal["ok", "warn", "fail"]


class Check(BaseModel):
    """The result of one check; unless it is `ok`, `hint` names what to do."""

    name: str
    result: Result
    message: str
    hint: str = Field(default="", serialization_alias="way_out")


def ok(name: str, message: str) -> Check:
    return Check(name=name, result="ok", message=message)


def warn(name: str, message: str, hint: str) -> Check:
    return Check(name=name, result="warn", message=message, hint=hint)


def fail(name: str, message: str, hint: str) -> Check:
    return Check(name=name, result="fail", message=message, hint=hint)


def fail_with(name: str, problem: str, separator: str, hint: str = "") -> Check:
    """Return the check of a problem whose message names the remedy after `separator`; `hint` is used if it does not."""
    message, _, remedy = problem.partition(separator)
    return fail(name, message, remedy or hint)
