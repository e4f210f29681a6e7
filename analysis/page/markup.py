"""Builds HTML so that text is escaped unless it was built here: a name from a file can never become a tag."""

from __future__ import annotations

import html
import re

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_VOID = {"input"}  # elements that have no end


class Markup(str):
    """Text that is HTML already."""


def escape(value: object) -> Markup:
    """HTML for any text; Markup stays as it is."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_CONTROL.sub("\ufffd", str(value)), quote=True))


def join(*parts: object) -> Markup:
    """The parts after one another, each escaped where it is not Markup."""
    return Markup("".join(escape(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """`<name attributes>children</name>`; `class_` stands for class, None leaves an attribute out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>" + ("" if name in _VOID else f"{join(*children)}</{name}>"))


def inline_svg(svg: str, prefix: str, description: str) -> Markup:
    """A matplotlib SVG as an element of the page: ids made the figure's own, no prolog, no name spaces."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    head, rest = body.split(">", 1)
    view_box = re.search(r'viewBox="[^"]+"', head)
    width = re.search(r'width="([\d.]+)pt"', head)
    if view_box is None or width is None:
        raise ValueError("not an SVG figure by matplotlib")
    style = f"max-width:{float(width.group(1)) * 4 / 3:.0f}px"
    name = f'role="img" aria-label="{escape(description)}"'
    return Markup(f'<svg {view_box.group(0)} style="{style}" {name}>{rest.strip()}')
