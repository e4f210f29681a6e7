"""Makes reports and reads them back as a browser would."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from analysis.cli import main


class Page(HTMLParser):
    """A page's tags, visible text and table lines."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.lines: list[list[str]] = []
        self.text = ""
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.lines[-1][-1] += data

    def line(self, *beginning: str) -> list[str]:
        """The one table line that begins so."""
        found = [line for line in self.lines if line[: len(beginning)] == list(beginning)]
        assert len(found) >= 1, f"no line {beginning} in {self.lines}"
        return found[0]


def report(tmp_path: Path, *runs: Path) -> Page:
    output = tmp_path / "page.html"
    assert main(["report", *map(str, runs), "--output", str(output)]) == 0
    return Page(output.read_text(encoding="utf-8"))
