"""HTML from the templates in this room: whatever is filled in is escaped unless a template made it."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.draw.own_files import write_own

# What no page may hold, escaped or not.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: object) -> Markup:
    """The template filled in; raises jinja2.UndefinedError where it names a value that is not given."""
    text = _TEMPLATES.get_template(template).render(values)
    return Markup(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))


def write_page(content: Markup, output: Path) -> None:
    """Writes a page whole or not at all. Raises ResultsError where another file is in its place."""
    output.parent.mkdir(parents=True, exist_ok=True)
    # A path may hold bytes that are no UTF-8.
    write_own({output: f"{content}\n".encode(errors="backslashreplace")})
