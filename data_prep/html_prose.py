"""Prose paragraphs out of the HTML pages of LibreOffice's help and of Debian's installation guide.

A page gives blocks (`p`, `h1` to `h6`, inner tags dropped); `keep_paragraph` then tells running prose in the
wanted language from formulas, bare labels, code and untranslated English.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

BLOCKS = frozenset(("p", "h1", "h2", "h3", "h4", "h5", "h6"))
VOID = frozenset(
    (
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
    )
)

HELP_SKIPPED_TAGS = frozenset(("pre", "code", "script", "style"))
HELP_SKIPPED_CLASSES = frozenset(
    "MAC WIN UNIX howtoget relatedtopics bascode pycode debug iconcell noteicon".split()
)
HELP_SKIPPED_P_CLASSES = frozenset(
    "code codeintable smathcode related howtogetheader image tableheadintable".split()
)
GUIDE_SKIPPED_TAGS = frozenset(("pre", "script", "style", "nav", "footer", "header"))
GUIDE_SKIPPED_CLASSES = frozenset(
    "navheader navfooter toc programlisting screen titlepage footer header legalnotice revhistory"
    " informaltable".split()
)

STOP_WORDS = {
    "de": "als an auch auf aus bei das dem den der des die durch ein eine einen einer es für im in ist kann "
    "mit nach nicht oder sich sie um und von wenn werden wird zu",
    "fr": "au aux avec ce cette dans de des du en est et il la le les ne ou par pas plus pour que qui se si "
    "sont sur un une votre vous à être",
    "it": "a al alla che come con da dei del della delle di e essere gli i il in la le lo nel non o per più "
    "questo se si sono su un una viene è",
    "nl": "aan als bij dat de deze die dit door een en er het in is kan kunt met naar niet of om ook op te u "
    "uit van voor worden wordt zijn",
    "en": "a all an and are as at be by can for from has have if in is it not of on or that the this to use "
    "used was when which will with you your",
}
_STOP = {language: frozenset(words.split()) for language, words in STOP_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+")
_DISTRIBUTION_HOST = re.compile(r"debian\.(org|net)", re.IGNORECASE)


class _Blocks(HTMLParser):
    """Collects (tag, text) of the blocks inside `inside_id` (None: the page), outside skipped elements."""

    def __init__(
        self, inside_id: str | None, tags: frozenset[str], classes: frozenset[str], p_classes: frozenset[str]
    ):
        super().__init__(convert_charrefs=True)
        self.inside_id, self.tags, self.classes, self.p_classes = inside_id, tags, classes, p_classes
        self.open: list[tuple[str, bool, bool]] = []  # tag, inside the wanted part, skipped
        self.blocks: list[tuple[str, list[str]]] = []
        self.block_depth: int | None = None  # how many elements were open when the block began

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            if tag == "br":
                self.handle_data(" ")
            return
        if tag in BLOCKS and self.open and self.open[-1][0] == "p":
            self._close(len(self.open) - 1)  # HTML lets a new block end an open paragraph
        named = dict(attributes)
        classes = set((named.get("class") or "").split())
        _, inside, skipped = self.open[-1] if self.open else ("", self.inside_id is None, False)
        inside = inside or (tag == "div" and named.get("id") == self.inside_id)
        skipped = skipped or tag in self.tags or bool(classes & self.classes)
        skipped = skipped or (tag == "p" and bool(classes & self.p_classes))
        if tag in BLOCKS and inside and not skipped and self.block_depth is None:
            self.block_depth = len(self.open)
            self.blocks.append((tag, []))
        self.open.append((tag, inside, skipped))

    def handle_endtag(self, tag: str) -> None:
        for depth in range(len(self.open) - 1, -1, -1):
            if self.open[depth][0] == tag:
                self._close(depth)
                return

    def _close(self, depth: int) -> None:
        del self.open[depth:]
        if self.block_depth is not None and depth <= self.block_depth:
            self.block_depth = None

    def handle_data(self, data: str) -> None:
        if self.block_depth is not None and not self.open[-1][2]:
            self.blocks[-1][1].append(data)


def clean(text: str) -> str:
    """Drops soft hyphens and zero-width marks; every run of white space becomes one blank."""
    return " ".join(re.sub("[\u00ad\u200b\ufeff]", "", text).split())


def blocks(html: str, kind: str) -> list[tuple[str, str]]:
    """The page's (tag, text) blocks in order; `kind` is 'help' or 'guide'."""
    if kind == "help":
        parser = _Blocks("DisplayArea", HELP_SKIPPED_TAGS, HELP_SKIPPED_CLASSES, HELP_SKIPPED_P_CLASSES)
    else:
        parser = _Blocks(None, GUIDE_SKIPPED_TAGS, GUIDE_SKIPPED_CLASSES, frozenset())
    parser.feed(html)
    parser.close()
    return [(tag, clean("".join(parts))) for tag, parts in parser.blocks]


def keep_paragraph(text: str, language: str) -> bool:
    """True for running prose: long enough, mostly letters, and with `language`'s common words."""
    if len(text) < 30 or _DISTRIBUTION_HOST.search(text):
        return False
    words = [word.lower() for word in _WORD.findall(text)]
    letters = sum(character.isalpha() or character == " " for character in text)
    if len(words) < 5 or letters < 0.8 * len(text):
        return False
    shares = {name: sum(word in stop for word in words) / len(words) for name, stop in _STOP.items()}
    own = shares[language]
    return own >= 0.10 and all(own >= share for share in shares.values())
