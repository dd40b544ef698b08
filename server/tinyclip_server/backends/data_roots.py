"""The check of the addresses that a request names, by field: their text, the service's own files, `TINYCLIP_DATA_ROOTS`.

The fields are found by their types (`tinyclip.schemas.addresses`). Workers check again when they open an address: a pattern may
find a link, and a folder may differ from node to node.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import BaseModel
from tinyclip.addresses import AddressRules, resolver
from tinyclip.schemas import FieldError
from tinyclip.schemas.addresses import Place, addresses_in

from tinyclip_server.backends.turns import Turns
from tinyclip_server.problems import InvalidInput

MAX_SEGMENTS = 300_000
"""Slashes of all addresses of a request; checking takes some microseconds for each."""
ADMITTED = 8
"""Requests of one project whose addresses are being checked, or wait for that."""
SLOTS = 2
"""Requests whose addresses are checked at once."""
PATIENCE_S = 30.0

T = TypeVar("T")


class AddressChecks:
    """Checks the addresses of requests in threads, few at once: links are followed on a disk that may be slow."""

    def __init__(self) -> None:
        self._turns = Turns(SLOTS, admitted=ADMITTED, patience_s=PATIENCE_S, work="checking addresses")

    async def run(self, project: str, check: Callable[[], T]) -> T:
        """Return what a function finds in the file system. Raises TooManyRequests."""
        async with self._turns.admit(project), self._turns.turn(project):
            return await asyncio.to_thread(check)

    async def expect_readable(self, project: str, rules: AddressRules, document: BaseModel) -> None:
        """Check every address in a document. Raises InvalidInput naming each that is refused, TooManyRequests."""
        places = list(addresses_in(document))
        segments = sum(address.count("/") for _, address in places)
        if segments > MAX_SEGMENTS:
            message = f"the addresses have {segments:,} slashes, more than {MAX_SEGMENTS:,}; name shards by patterns"
            raise InvalidInput(message, code="too_complex")
        if not places:
            return
        errors = await self.run(project, lambda: _errors(places, rules))
        if errors:
            raise InvalidInput.of(errors, code="outside_data_roots" if rules.roots else "address_refused")


def _errors(places: Sequence[Place], rules: AddressRules) -> list[FieldError]:
    resolve = resolver()
    checked = ((pointer, address, rules.problem(address, resolve)) for pointer, address in places)
    return [FieldError(pointer=at, value=address, message=problem) for at, address, problem in checked if problem is not None]
