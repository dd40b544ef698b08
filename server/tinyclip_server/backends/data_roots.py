"""The check of the addresses that a request names, by field: their text, the service's own files, `TINYCLIP_DATA_ROOTS`.

The fields are found by their types (`tinyclip.schemas.addresses`). Workers check again when they open an address: a pattern may
find a link, and a folder may differ from node to node.
"""

import asyncio
from collections.abc import Sequence

from pydantic import BaseModel
from tinyclip.addresses import AddressRules
from tinyclip.schemas import FieldError
from tinyclip.schemas.addresses import Place, addresses_in

from tinyclip_server.problems import InvalidInput


async def expect_readable(rules: AddressRules, document: BaseModel, pointer: str = "") -> None:
    """Check every address in a document that is at `pointer` of the request. Raises InvalidInput naming each that is refused."""
    places = list(addresses_in(document, pointer))
    errors = await asyncio.to_thread(_errors, places, rules)  # links are followed on a disk that may be slow
    if errors:
        raise InvalidInput.of(errors, code="outside_data_roots" if rules.roots else "address_refused")


def _errors(places: Sequence[Place], rules: AddressRules) -> list[FieldError]:
    checked = ((pointer, address, rules.problem(address)) for pointer, address in places)
    return [FieldError(pointer=at, value=address, message=problem) for at, address, problem in checked if problem is not None]
