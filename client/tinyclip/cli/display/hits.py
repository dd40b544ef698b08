"""The hits of a search: a table, all their metadata, and a page with their pictures."""

import json
from typing import Any

from tinyclip.cli.display.console import console, new_table, print_table
from tinyclip.cli.display.texts import one_line, printable, shortened
from tinyclip.schemas import Hit, SearchResponse

WIDTH = 100
"""The most columns of the table, on a wide terminal or without one."""
CAPTION_FIELDS = ("caption", "captions", "text", "txt", "title", "description")
"""Fields of metadata that can be a caption; the first one that is a text, or a list of texts, is it."""
_PLACE_FIELDS = ("key", "shard")
"""Fields that builds write: they are no caption."""
_LONGEST_ID = 32
_RULES = 13
"""Columns of a table's rules and the space around four cells."""
_SCORE = 6


def caption_of(metadata: dict[str, Any]) -> str:
    """Return the caption in an item's metadata, or else its first text; "" if there is none."""
    others = [name for name in metadata if name not in (*CAPTION_FIELDS, *_PLACE_FIELDS)]
    for name in (*CAPTION_FIELDS, *others):
        value = metadata.get(name)
        first = value[0] if isinstance(value, list) and value and name in CAPTION_FIELDS else value
        if isinstance(first, str) and first.strip():
            return first.strip()
    return ""


def show_hits(response: SearchResponse) -> None:
    """Print rank, score, id and caption of each hit on a line of at most WIDTH columns."""
    out = console()
    table = new_table(out, "#", "score", "id", "caption", right=("#", "score"))
    width = min(out.width, WIDTH) - _RULES - _SCORE - len(str(len(response.hits)))
    ids = [shortened(one_line(hit.id), max(8, min(_LONGEST_ID, width // 2))) for hit in response.hits]
    left = max(8, width - max(map(len, ids), default=0))
    for rank, (id, hit) in enumerate(zip(ids, response.hits, strict=True), start=1):
        table.add_row(str(rank), f"{hit.score:.3f}", id, shortened(one_line(caption_of(hit.metadata)), left))
    print_table(out, table)


def show_whole_hits(response: SearchResponse) -> None:
    """Print each hit with all its metadata."""
    out = console()
    for rank, hit in enumerate(response.hits, start=1):
        out.print(f"{rank}. {hit.score:.3f} {one_line(hit.id)}", markup=False)
        for name, value in hit.metadata.items():
            out.print(f"   {one_line(name)}: {one_line(text_of(value))}", markup=False)


def text_of(value: Any) -> str:
    """Return a value of metadata as text."""
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def title_of(hit: Hit, rank: int) -> str:
    """Return the line above a hit's caption."""
    return f"{rank}. {one_line(hit.id)} ({hit.score:.3f})"
