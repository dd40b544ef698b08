"""Keyset pagination: a token holds the key of the last row, so page 10,000 costs what page 1 does."""

import base64
import binascii
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query
from sqlalchemy import ColumnElement, Select, Text, cast, func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute
from tinyclip.schemas import Page

from tinyclip_server.problems import InvalidInput

MAX_PAGE_SIZE = 500
MAX_PAGE_BYTES = 4 << 20
"""Bytes of the documents of one page, which ends with the first one that exceeds them."""

Row = TypeVar("Row")
Item = TypeVar("Item")


@dataclass(frozen=True)
class PageParams:
    """The two query parameters of every list."""

    page_size: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = 50
    page_token: Annotated[str | None, Query()] = None

    def after_newest(self) -> tuple[datetime, str] | None:
        """Return the position in a list ordered by newest, then id; None on the first page."""
        created_at, row_id = self.position(datetime, str) or (None, None)
        return (created_at, row_id) if created_at and row_id else None

    def after_number(self) -> int:
        """Return the position in a list numbered from 1; 0 on the first page."""
        (number,) = self.position(int) or (0,)
        return int(number)

    def after_name(self) -> str:
        """Return the position in a list ordered by name; empty on the first page."""
        (name,) = self.position(str) or ("",)
        return str(name)

    def position(self, *types: type) -> tuple[Any, ...] | None:
        """Return the key of the last row of the page before, None on the first page. Raises InvalidInput for any other token."""
        if self.page_token is None:
            return None
        try:
            padded = self.page_token + "=" * (-len(self.page_token) % 4)
            values = json.loads(base64.urlsafe_b64decode(padded))
            return tuple(_parse(value, kind) for value, kind in zip(values, types, strict=True))
        except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
            raise InvalidInput.field(
                "/page_token", self.page_token, "not a token of this list; use next_page_token of the previous page"
            ) from error

    def page(
        self, rows: Sequence[Row], view: Callable[[Row], Item], key: Callable[[Row], tuple[Any, ...]]
    ) -> Page[Item]:
        """Return a page of `rows`, which have one more than `page_size` if there are more, or end early."""
        shown = rows[: self.page_size]
        more = len(rows) > self.page_size or (isinstance(rows, Rows) and rows.end_early)
        after = key(shown[-1]) if more else rows.searched_to if isinstance(rows, Rows) else None
        return Page(items=[view(row) for row in shown], next_page_token=page_token(*after) if after else None)


class Rows(list[Row]):
    """The rows of a page; more of them may follow."""

    end_early = False
    searched_to: tuple[Any, ...] | None = None
    """The key after which the search of the next page begins, if that of this one ended before the last row."""


async def fitting_rows(
    session: AsyncSession, query: Select[Row], document: ColumnElement[Any] | InstrumentedAttribute[Any], limit: int
) -> Rows[Row]:
    """Return the first rows whose documents have MAX_PAGE_BYTES together, at least one and at most `limit`."""
    sizes = (await session.scalars(query.with_only_columns(func.length(cast(document, Text))).limit(limit))).all()
    fitting = max(1, sum(total <= MAX_PAGE_BYTES for total in itertools.accumulate(sizes)))
    rows = Rows((await session.scalars(query.limit(fitting))).all())
    rows.end_early = fitting < len(sizes)
    return rows


Paging = Annotated[PageParams, Depends()]


def page_token(*key: Any) -> str:
    """Return the token of the page after the row with a key."""
    values = [value.isoformat() if isinstance(value, datetime) else value for value in key]
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def _parse(value: Any, kind: type) -> Any:
    if kind is datetime:
        return datetime.fromisoformat(value).astimezone(UTC)  # fails for days that do not exist in UTC
    if not isinstance(value, kind) or (isinstance(value, int) and not 0 <= value < 2**53):
        raise TypeError(f"expected {kind.__name__}")
    return value
