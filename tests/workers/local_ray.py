"""Tasks and actors in this process, called at once, in the place of the module `ray`: for tests of what jobs make of results."""

from collections.abc import Callable, Sequence
from typing import Any


class LocalRay:
    """The part of `ray` that jobs use. A result is kept with its error, which `get` raises."""

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self._cpus)}

    def remote(self, **options: Any) -> Callable[[Any], "_Remote"]:
        return _Remote

    def wait(self, results: Sequence["_Result"], **options: Any) -> tuple[list["_Result"], list["_Result"]]:
        return list(results), []

    def get(self, results: Any) -> Any:
        return [result.get() for result in results] if isinstance(results, list) else results.get()

    def kill(self, actor: Any) -> None:
        """Do nothing: an actor is an object of this process."""


class _Result:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._value, self._error = None, None
        try:
            self._value = function(*arguments)
        except Exception as error:
            self._error = error

    def get(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


class _Remote:
    """A function, whose calls are results, or a class, whose calls are actors."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def remote(self, *arguments: Any) -> Any:
        return _Actor(self._target(*arguments)) if isinstance(self._target, type) else _Result(self._target, *arguments)


class _Actor:
    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def __getattr__(self, name: str) -> _Remote:
        return _Remote(getattr(self._instance, name))
