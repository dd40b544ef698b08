"""A diagram of a student whose blocks differ in size: the heads and MLP units that each block has kept, as an SVG."""

from collections.abc import Iterator
from html import escape

from tinyclip.schemas.layouts import ImageLayout, Layout, TextLayout

ROW, BAR, BAR_WIDTH, LABEL, NUMBER = 26, 8, 180, 64, 44
HEADS_COLOR, MLP_COLOR, GONE_COLOR, INK = "#3b6ea8", "#d08a2e", "#e4e4e0", "#333333"
TOP = 64
PANEL = LABEL + BAR_WIDTH + NUMBER


def layout_svg(layout: Layout, original: Layout | None) -> str:
    """Draw both towers side by side, one row per block; grey is what the original has more. A ResNet tower is left out."""
    full = original or layout
    towers: list[tuple[str, ImageLayout | TextLayout, ImageLayout | TextLayout]] = [
        ("image", layout.image, full.image), ("text", layout.text, full.text),
    ]  # fmt: skip
    shown = [(name, own, there) for name, own, there in towers if own.heads and own.mlp]
    rows = max((len(own.heads or []) for _, own, _ in shown), default=0)
    width, height = PANEL * len(shown) + 16, TOP + ROW * rows + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for panel, (name, own, there) in enumerate(shown):
        parts += _tower(8 + PANEL * panel, name, own, there)
    return "\n".join([*parts, "</svg>", ""])


def _tower(left: int, name: str, own: ImageLayout | TextLayout, full: ImageLayout | TextLayout) -> Iterator[str]:
    channels = f"{own.width} of {full.width} channels" if own.width != full.width else f"{own.width} channels"
    yield _text(left, 18, f"{name} tower: {channels}", "bold")
    yield _text(left + LABEL, 36, "heads", color=HEADS_COLOR)
    yield _text(left + LABEL + 48, 36, "MLP units", color=MLP_COLOR)
    heads, mlp = own.heads or [], own.mlp or []
    most_heads, most_units = max([*heads, *(full.heads or []), 1]), max([*mlp, *(full.mlp or []), 1])
    for block, (own_heads, units) in enumerate(zip(heads, mlp, strict=True)):
        y = TOP - 10 + ROW * block
        yield _text(left, y + 12, f"block {block}")
        yield from _bar(left + LABEL, y, own_heads, most_heads, HEADS_COLOR)
        yield from _bar(left + LABEL, y + BAR + 2, units, most_units, MLP_COLOR)


def _bar(left: int, top: int, value: int, most: int, color: str) -> Iterator[str]:
    yield f'<rect x="{left}" y="{top}" width="{BAR_WIDTH}" height="{BAR}" fill="{GONE_COLOR}"/>'
    yield f'<rect x="{left}" y="{top}" width="{BAR_WIDTH * value / most:.1f}" height="{BAR}" fill="{color}"/>'
    yield _text(left + BAR_WIDTH + 4, top + BAR, str(value), size=9)


def _text(x: int, y: int, text: str, weight: str = "normal", color: str = INK, size: int = 11) -> str:
    return f'<text x="{x}" y="{y}" font-weight="{weight}" font-size="{size}" fill="{color}">{escape(text)}</text>'
