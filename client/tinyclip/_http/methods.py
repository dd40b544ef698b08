"""Methods of resources, declared once for both clients.

A class such as `JobMethods` declares every method of a resource. `Jobs` mixes it with `Resource`, where methods block, and
`AsyncJobs` with `AsyncResource`, where they are coroutines and async iterators. A declaration is one of:

    method        a function that describes one call
    bound_method  such a function, whose first argument is the resource
    operation     an async function that sends several calls
    iteration     an async generator
"""

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from tinyclip._http.backends import run
from tinyclip._http.calls import Call
from tinyclip._http.transport import Transport
from tinyclip._http.waiting import Deadline
from tinyclip.schemas import Page

P = ParamSpec("P")
T = TypeVar("T")

POLL_SECONDS = 0.5


class ResourceMethods:
    """Base of the methods of a resource, for either client."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def _items(self, describe: Callable[[str | None], Call[Page[T]]]) -> AsyncGenerator[T, None]:
        """Yield the items of all pages; `describe` returns the call for the page that a token names, None being the first."""
        token: str | None = None
        while True:
            page = await self._transport.send(describe(token))
            for item in page.items:
                yield item
            if (token := page.next_page_token) is None:
                return

    async def _poll(
        self, call: Call[T], done: Callable[[T], bool], deadline: Deadline, on_progress: Callable[[T], object] | None = None
    ) -> T:
        """Send a call until `done` is true of its value; `on_progress` receives the values before that."""
        while not done(value := await self._transport.send(call)):
            if on_progress is not None:
                on_progress(value)
            await self._transport.sleep(deadline.remaining(POLL_SECONDS))
        return value


class Resource(ResourceMethods):
    """A group of methods of the sync client."""


class AsyncResource(ResourceMethods):
    """A group of methods of the async client."""


class operation(Generic[P, T]):
    """A method that awaits: decorates an async function of a `ResourceMethods`."""

    def __init__(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> None:
        self._function: Callable[..., Any] = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, resource: None, owner: object) -> Self: ...
    @overload
    def __get__(self, resource: Resource, owner: object) -> Callable[P, T]: ...
    @overload
    def __get__(self, resource: AsyncResource, owner: object) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, resource: ResourceMethods | None, owner: object) -> Self | Callable[P, Any]:
        if resource is None:
            return self
        bound = self._bind(resource)
        if isinstance(resource, AsyncResource):
            return bound

        @functools.wraps(bound)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return run(bound(*args, **kwargs))

        return call

    def _bind(self, resource: ResourceMethods) -> Callable[P, Coroutine[Any, Any, T]]:
        bound: Callable[P, Coroutine[Any, Any, T]] = self._function.__get__(resource)
        return bound


class method(operation[P, T]):
    """A method that sends the call that `describe` returns, and has its signature and docstring."""

    def __init__(self, describe: Callable[P, Call[T]]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__

    def _bind(self, resource: ResourceMethods) -> Callable[P, Coroutine[Any, Any, T]]:
        return _sender(resource, self._describe)


class bound_method(operation[P, T]):
    """A method that sends the call that `describe` returns for its resource."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._describe: Callable[..., Any] = describe
        self.__doc__ = describe.__doc__

    def _bind(self, resource: ResourceMethods) -> Callable[P, Coroutine[Any, Any, T]]:
        return _sender(resource, self._describe.__get__(resource))


def _sender(resource: ResourceMethods, describe: Callable[P, Call[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    @functools.wraps(describe)
    async def send(*args: P.args, **kwargs: P.kwargs) -> T:
        return await resource._transport.send(describe(*args, **kwargs))

    return send


class iteration(Generic[P, T]):
    """A method that iterates: decorates a function of a `ResourceMethods` that returns an async generator."""

    def __init__(self, function: Callable[Concatenate[Any, P], AsyncGenerator[T, None]]) -> None:
        self._function: Callable[..., Any] = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, resource: None, owner: object) -> Self: ...
    @overload
    def __get__(self, resource: Resource, owner: object) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, resource: AsyncResource, owner: object) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, resource: ResourceMethods | None, owner: object) -> Self | Callable[P, Any]:
        if resource is None:
            return self
        bound: Callable[P, AsyncGenerator[T, None]] = self._function.__get__(resource)
        if isinstance(resource, AsyncResource):
            return bound

        @functools.wraps(bound)
        def iterate(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            items = bound(*args, **kwargs)
            try:
                while True:
                    try:
                        item = run(items.__anext__())
                    except StopAsyncIteration:
                        return
                    yield item
            finally:
                run(items.aclose())

        return iterate
