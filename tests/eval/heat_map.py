"""The table as a picture: one coloured cell for each rule and attack, in SVG.

Here: drawing. Never here: figures. The same figures give the same bytes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

from eval.attacks import ATTACKS
from eval.robustness_page import cells_of

LEFT, TOP, WIDTH, HEIGHT = 200, 66, 78, 26
STOPS = (
    (10, (178, 24, 43)),
    (50, (239, 138, 98)),
    (80, (253, 219, 199)),
    (88, (247, 247, 247)),
    (97, (33, 102, 172)),
)
"""Per cent and colour (ColorBrewer's RdBu, readable with colour blindness)."""
NO_FIGURE = "none"
DARK_BELOW, DARK_ABOVE = 35, 93
FONT = "font-family='Helvetica, Arial, sans-serif'"


def colour(percent: float) -> str:
    """Return the colour of an accuracy."""
    low, high = STOPS[0], STOPS[-1]
    value = min(max(percent, low[0]), high[0])
    for one, two in pairwise(STOPS):
        if value <= two[0]:
            low, high = one, two
            break
    share = (value - low[0]) / (high[0] - low[0])
    parts = [round(a + share * (b - a)) for a, b in zip(low[1], high[1], strict=True)]
    return "#" + "".join(f"{part:02x}" for part in parts)


def heat_map(rows: list[dict[str, Any]]) -> str:
    """Return the picture."""
    cells = cells_of(rows)
    columns = list(ATTACKS)
    width = LEFT + WIDTH * len(columns) + 16
    height = TOP + HEIGHT * len(cells) + 16
    opening = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}'"
        f" width='{width}' height='{height}' {FONT} font-size='12'>"
    )
    parts = [
        opening,
        f"<rect width='{width}' height='{height}' fill='white'/>",
        _text(16, 26, "Accuracy in % after the last round, by rule and attack", size=15),
    ]
    for column, name in enumerate(columns):
        middle = LEFT + WIDTH * column + WIDTH // 2
        parts.append(_text(middle, TOP - 10, ATTACKS[name].title, anchor="middle"))
    for line, (rule, row) in enumerate(cells.items()):
        y = TOP + HEIGHT * line
        parts.append(_text(LEFT - 10, y + 17, rule, anchor="end"))
        for column, name in enumerate(columns):
            parts += _cell(LEFT + WIDTH * column, y, row.get(name))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _cell(x: int, y: int, row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return []
    percent = row["ours"]
    if percent is None:
        text = _text(x + WIDTH // 2, y + 17, "refused", anchor="middle", ink="gray")
        return [_box(x, y, NO_FIGURE), text]
    ink = "white" if percent < DARK_BELOW or percent > DARK_ABOVE else "black"
    text = _text(x + WIDTH // 2, y + 17, f"{percent:.1f}", anchor="middle", ink=ink)
    return [_box(x, y, colour(percent)), text]


def _box(x: int, y: int, fill: str) -> str:
    return (
        f"<rect x='{x}' y='{y}' width='{WIDTH - 2}' height='{HEIGHT - 2}' fill='{fill}'"
        f" stroke='{'lightgray' if fill == NO_FIGURE else fill}'/>"
    )


def _text(
    x: int, y: int, text: str, *, anchor: str = "start", ink: str = "black", size: int = 12
) -> str:
    style = f"text-anchor='{anchor}' fill='{ink}' font-size='{size}'"
    return f"<text x='{x}' y='{y}' {style}>{escape(text)}</text>"
