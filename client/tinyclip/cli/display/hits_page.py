"""A page of a search's hits with their pictures, for a browser: one file without scripts or addresses."""

import base64
import os
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from tinyclip.cli.display.hits import caption_of, text_of, title_of
from tinyclip.cli.display.texts import one_line, printable
from tinyclip.schemas import Hit

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px system-ui, sans-serif; margin: 2rem }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1.5rem }}
figure {{ margin: 0; overflow-wrap: anywhere }}
img, .none {{ width: 100%; aspect-ratio: 1; object-fit: contain; background: #8882; display: grid; place-items: center }}
.none {{ text-align: center; font-size: .85em }}
dl {{ font-size: .85em }} dd {{ margin: 0 0 .3rem 1rem }}
</style></head><body>
<h1>{title}</h1>
<main>
"""


def write_page(title: str, hits: Sequence[Hit], pictures: Mapping[str, bytes | str]) -> Path:
    """Write a page to a new temporary file that only its owner may read. `pictures`: a JPEG by id, or why there is none."""
    handle, name = tempfile.mkstemp(prefix="tinyclip-search-", suffix=".html")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(page_of(title, hits, pictures))
    return Path(name)


def page_of(title: str, hits: Sequence[Hit], pictures: Mapping[str, bytes | str]) -> str:
    """Return the page. Everything in it is escaped."""
    figures = (_figure(hit, rank, pictures.get(hit.id, "not asked for")) for rank, hit in enumerate(hits, start=1))
    return _HEAD.format(title=_text(title)) + "".join(figures) + "</main>\n</body></html>\n"


def _figure(hit: Hit, rank: int, picture: bytes | str) -> str:
    caption = caption_of(hit.metadata)
    shown = _reason(picture) if isinstance(picture, str) else _image(picture, caption)
    metadata = "".join(f"<dt>{_text(name)}</dt><dd dir=auto>{_text(text_of(value))}</dd>" for name, value in hit.metadata.items())
    details = f"<details><summary>metadata</summary><dl>{metadata}</dl></details>" if metadata else ""
    lines = f"<div><bdi>{_text(title_of(hit, rank))}</bdi></div><div dir=auto>{_text(caption)}</div>"
    return f"<figure>{shown}<figcaption>{lines}{details}</figcaption></figure>\n"


def _reason(text: str) -> str:
    return f'<div class="none"><span>no picture: {_text(text)}</span></div>'


def _image(jpeg: bytes, caption: str) -> str:
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" alt="{_text(one_line(caption))}">'


def _text(text: str) -> str:
    return escape(printable(text), quote=True)
