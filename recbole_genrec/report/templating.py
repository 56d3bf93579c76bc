"""How pages are made: jinja2 templates, plotly figures as JSON, the scripts written in once."""

from __future__ import annotations

import functools
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

TEMPLATES = Path(__file__).with_name("templates")


class Figures:
    """The figures of one page, each with an id of its own."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, figure: go.Figure, label: str) -> Markup:
        """The place of a figure in the page, with its content as JSON.

        Args:
            figure: is drawn by the page's script.
            label: what it shows, for people who do not see it.
        """
        self._count += 1
        content = json.loads(figure.to_json())
        content["layout"].pop("template", None)
        height = content["layout"].get("height", 320)
        return Markup(
            '<div class="figure" id="figure-{}" role="img" aria-label="{}" '
            'style="min-height:{}px"><script type="application/json">{}</script></div>'
        ).format(self._count, label, height, script_json(content))


def script_json(content: Any) -> Markup:
    """JSON that can stand inside a script element."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    # Nothing in it may close the element or open a comment.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  # the characters that HTML reads are escaped


@functools.lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["metric"] = metric_text
    environment.filters["p"] = p_text
    environment.filters["grouped"] = lambda value: f"{value:,}"
    environment.filters["plain"] = setting_text
    return environment


def render(template: str, **values: Any) -> str:
    """A page: the template with style and scripts inside, so that it needs no network.

    Args:
        template: name of its file.
        **values: what it shows.
    """
    values["made"] = datetime.now().strftime("%Y-%m-%d %H:%M")
    values["style"] = _source("style.css")
    values["script"] = _source("page.js")
    values["plotly"] = Markup(get_plotlyjs())  # noqa: S704  # the library's own text
    return _environment().get_template(template).render(**values)


def _source(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704  # ours


def metric_text(value: float | None) -> str:
    """A metric for people."""
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def p_text(value: float) -> str:
    """A p-value for people."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def setting_text(value: Any) -> str:
    """A value of a setting, on one line."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
