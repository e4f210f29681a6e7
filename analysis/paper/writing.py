"""Writes tables as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from analysis.draw.own_files import write_own
from analysis.paper.table import Line, Table, Value

MISSING = "-"
FEWER = "\N{DAGGER}"
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def write(tables: Sequence[Table], folder: Path, name: str) -> list[Path]:
    """Writes all tables of an item into name.md, name.tex and name.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        folder / f"{name}.md": "\n".join(markdown(table) for table in tables),
        folder / f"{name}.tex": "% Needs \\usepackage{booktabs}.\n" + "\n".join(map(latex, tables)),
        folder / f"{name}.csv": comma_separated(tables),
    }
    write_own({path: text.encode() for path, text in texts.items()})
    return [*texts]


def key(table: Table) -> str:
    """How to read the marks of a table."""
    figures = table.figures
    words = []
    if figures["std"].notna().any():
        words.append("Mean over users; mean (sample standard deviation) over seeds.")
    if figures["rank"].notna().any():
        words.append("Small figures: rank of the mean, the lower the better; bold: the best.")
    if figures["is_ours"].any():
        words.append("Italic: the paper's own method.")
    if figures["is_reference"].any():
        rows = [*dict.fromkeys(figures.loc[figures["is_reference"], "row"])]
        words.append(
            f"Without a rank, as {'references' if len(rows) > 1 else 'a reference'}: {', '.join(rows)}."
        )
    return " ".join(words)


def _number(number: float, table: Table) -> str:
    if math.isinf(number):
        return "∞"
    return f"{number:,.0f}" if table.is_whole else f"{number:,.2f}"


def _text(value: Value, table: Table) -> str:
    text = _number(value.mean, table)
    return text if math.isnan(value.std) else f"{text} ({_number(value.std, table)})"


def _rank(value: Value) -> str:
    return "" if math.isnan(value.rank) else str(int(value.rank))


# Markdown ---------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """A table that a terminal shows aligned and a Markdown reader as a table."""
    rows = [["", *map(_plain, table.columns)]]
    section = ""
    for line in table.lines():
        if line.section != section:
            section = line.section
            rows.append([f"**{_plain(section)}**", *[""] * len(table.columns)])
        label = _plain(line.label)
        values = [_markdown_value(value, table) for value in line.values]
        rows.append([f"*{label}*" if line.is_ours else label, *values])
    # A section's heading may be longer than its column: it is no reason to make all lines so long.
    measured = [row for row in rows if any(row[1:])]
    widths = [max(3, *(len(row[column]) for row in measured)) for column in range(len(rows[0]))]
    rule = "|".join(["", "-" * (widths[0] + 2), *["-" * (width + 1) + ":" for width in widths[1:]], ""])
    lines = [_padded(rows[0], widths), rule, *[_padded(row, widths) for row in rows[1:]]]
    notes = [*([key(table)] if key(table) else []), *[f"- {remark}" for remark in table.remarks]]
    heading = f"### {table.title} [{table.source}]"
    return "\n".join([heading, "", *lines, *(["", *notes] if notes else []), ""])


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0]), *[cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]]
    return f"| {' | '.join(cells)} |"


def _markdown_value(value: Value, table: Table) -> str:
    if math.isnan(value.mean):
        return MISSING
    text = _text(value, table)
    text = f"**{text}**" if value.rank == 1 else text
    mark = FEWER if value.has_fewer_seeds else ""
    return text + mark + (f" {_rank(value)}".translate(_SUPERSCRIPTS) if _rank(value) else "")


# LaTeX ------------------------------------------------------------------------------------------------------


def latex(table: Table) -> str:
    """A complete table environment with booktabs' rules; the source stands in the caption."""
    width = 1 + len(table.columns)
    body: list[str] = []
    section = ""
    for line in table.lines():
        if line.section != section:
            body += [r"\midrule"] if body else []
            section = line.section
            body.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{_escaped(section)}}}}} \\")
        body.append(_latex_line(line, table))
    caption = f"{table.title} [{table.source}]. {key(table)}"
    notes = [f"% {_escaped(remark)}" for remark in table.remarks]
    head = " & ".join(["", *[_escaped(column) for column in table.columns]])
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(caption.strip())}}}",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def _latex_line(line: Line, table: Table) -> str:
    label = _escaped(line.label)
    cells = [rf"\emph{{{label}}}" if line.is_ours else label]
    for value in line.values:
        if math.isnan(value.mean):
            cells.append("--")
            continue
        text = _text(value, table).replace("∞", r"$\infty$")
        text = rf"\textbf{{{text}}}" if value.rank == 1 else text
        marks = (r"\dag" if value.has_fewer_seeds else "") + _rank(value)
        cells.append(text + (rf"\textsuperscript{{{marks}}}" if marks else ""))
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


# CSV --------------------------------------------------------------------------------------------------------


def comma_separated(tables: Sequence[Table]) -> str:
    """One line a figure, in full precision; `source` tells measured from published."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "section", "row", "column", "mean", "std", "seeds", "rank"])
    for table in tables:
        for line in table.lines():
            for column, value in zip(table.columns, line.values):
                writer.writerow([table.source, line.section, line.label, column, *_csv_value(value)])
    return text.getvalue()


def _csv_value(value: Value) -> list[object]:
    if math.isnan(value.seeds):
        return ["", "", 0, ""]
    std = "" if math.isnan(value.std) else repr(float(value.std))
    return [repr(float(value.mean)), std, int(value.seeds), _rank(value)]
