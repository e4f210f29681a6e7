"""One self-contained HTML page: its skeleton, its figures, and how it is written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from matplotlib.figure import Figure

from analysis.draw import canvas
from analysis.page.markup import Markup, inline_svg, join, tag
from analysis.read.own_files import check_own

# The page may not load anything, whatever a file's text contains.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass
class FigureFolder:
    """Where a page's figures go; hands each back as an element of the page."""

    path: Path
    written: int = 0

    def add(self, drawn: Figure, name: str, description: str, caption: str) -> Markup:
        self.path.mkdir(parents=True, exist_ok=True)
        self.written += 1
        svg = canvas.save(drawn, self.path, name)
        note = tag("figcaption", f"{caption} ", tag("small", f"{self.path.name}/{name}.svg, .png"))
        return tag("figure", inline_svg(svg, f"figure{self.written}", description), note)


def page(
    title: str,
    lead: Markup,
    parts: Sequence[tuple[str, str, Markup | None]],
    notes: Sequence[str] = (),
    opening: Markup | None = None,
) -> Markup:
    """The whole page: header with links, remarks, and the parts (id, heading, content) that have content."""
    parts = [part for part in parts if part[2] is not None]
    main = join(
        tag(
            "header",
            tag("h1", title),
            lead,
            tag("nav", *[tag("a", words, href=f"#{name}") for name, words, _ in parts]),
        ),
        opening or "",
        tag("ul", *[tag("li", note) for note in notes], class_="remarks") if notes else "",
        *[tag("section", tag("h2", words), content, id=name) for name, words, content in parts],
    )
    return document(title, tag("main", main))


def document(title: str, body: Markup, style: Markup | None = None) -> Markup:
    """A page with the project's style sheet (and `style` after it) around any body."""
    sheet = Markup(files("analysis.page").joinpath("report.css").read_text(encoding="utf-8"))
    head = join(
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("title", f"comigs: {title}"),
        tag("style", sheet, style or ""),
    )
    return tag("html", tag("head", head), tag("body", body), lang="en")


def write(content: Markup, output: Path) -> None:
    """Writes a page whole or not at all. Raises ResultsError where another file is in its place."""
    output.parent.mkdir(parents=True, exist_ok=True)
    check_own(output)
    partial = output.with_name(f".{output.name}.{secrets.token_hex(8)}.partial")
    try:
        with partial.open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write("<!DOCTYPE html>\n" + content + "\n")
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)
