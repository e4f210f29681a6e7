"""A page's figures: files in a folder beside it, and elements of the page itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from analysis.draw import canvas


@dataclass(frozen=True)
class Drawing:
    """A figure as an element of the page; `files` is the path of its files without their endings."""

    svg: Markup
    caption: str
    files: str


@dataclass
class FigureFolder:
    """Where a page's figures go."""

    path: Path
    written: int = 0

    @classmethod
    def beside(cls, page: Path) -> FigureFolder:
        return cls(page.with_name(f"{page.stem}_figures"))

    def add(self, drawn: Figure, name: str, description: str, caption: str) -> Drawing:
        """Writes name.svg and name.png."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.written += 1
        svg = canvas.save(drawn, self.path, name)
        return Drawing(
            _inline(svg, f"figure{self.written}", description), caption, f"{self.path.name}/{name}"
        )


def _inline(svg: str, prefix: str, description: str) -> Markup:
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
