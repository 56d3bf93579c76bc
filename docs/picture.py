"""Draws ``docs/assets/picture.svg``: from item texts to codes, from a history to the next codes."""

from __future__ import annotations

from pathlib import Path

WIDTH, HEIGHT = 860, 250
INK, PAPER, LINE, CODE = "#1f2937", "#f8fafc", "#94a3b8", "#2563eb"


def box(x: int, y: int, width: int, lines: list[str], fill: str = PAPER, ink: str = INK) -> str:
    """A rectangle with centred lines of text."""
    height = 22 + 18 * len(lines)
    shapes = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" '
        f'stroke="{LINE}"/>'
    ]
    for number, line in enumerate(lines):
        place = y + 26 + 18 * number
        shapes.append(f'<text x="{x + width // 2}" y="{place}" fill="{ink}">{line}</text>')
    return "\n".join(shapes)


def arrow(x: int, y: int, length: int, label: str = "") -> str:
    """An arrow to the right, with a word above it."""
    end = x + length
    head = f'<path d="M{end - 8} {y - 5} L{end} {y} L{end - 8} {y + 5}" fill="{LINE}"/>'
    word = f'<text x="{x + length // 2}" y="{y - 9}" class="small">{label}</text>'
    return f'<path d="M{x} {y} H{end - 6}" stroke="{LINE}" stroke-width="2"/>{head}{word}'


def picture() -> str:
    """The whole drawing."""
    top = [
        box(10, 30, 180, ["Espresso machine", "kitchen, 15 bar"]),
        arrow(195, 58, 90, "tokenizer"),
        box(290, 30, 130, ["codes", "12 . 7 . 31"], CODE, "#ffffff"),
        arrow(425, 58, 90, "one branch"),
        box(520, 30, 330, ["trie of the catalogue", "every path is an item"]),
    ]
    bottom = [
        box(10, 160, 180, ["history of a user", "4.9.2   12.3.8   12.7.5"]),
        arrow(195, 188, 90, "read"),
        box(290, 160, 130, ["language", "model"]),
        arrow(425, 188, 90, "search"),
        box(
            520, 160, 330, ["12 . 7 . 31   Espresso machine", "the exact best, where it is proven"]
        ),
    ]
    style = (
        "text{font:14px system-ui,sans-serif;text-anchor:middle}"
        f".small{{font-size:12px;fill:{INK}}}"
    )
    down = f'<path d="M685 92 V152" stroke="{LINE}" stroke-width="2" stroke-dasharray="4 4"/>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            "<title>From item texts to codes, and from a history to the next codes</title>",
            f"<style>{style}</style>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            *top,
            *bottom,
            down,
            "</svg>",
        ]
    )


if __name__ == "__main__":
    Path(__file__).with_name("assets").joinpath("picture.svg").write_text(picture() + "\n")
