"""The command line: `python -m analysis report RUN...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.results import ResultsError, open_run, results_file

BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 1 failed, 2 bad input."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"error: {error.filename or 'report'}: {error.strerror or error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description="Tables, figures and reports from results.h5."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    report = commands.add_parser(
        "report",
        help="write one self-contained HTML page about one or several runs",
        description="Writes one self-contained HTML page about one or several runs, and its figures "
        "(SVG, PNG) beside it. Runs that differ in their seed only are averaged; works while a run goes on.",
    )
    report.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run folder (holding results.h5) or a results file"
    )
    report.add_argument(
        "--output",
        type=Path,
        metavar="FILE.html",
        help="the page (default: report.html in the run folder; in the current folder for several runs)",
    )
    report.set_defaults(command=_report)
    return parser


def _report(options: argparse.Namespace) -> int:
    # The same file named twice is one run, not two seeds.
    paths = list({results_file(path).resolve(): results_file(path) for path in options.runs}.values())
    output = options.output or (paths[0].parent if len(paths) == 1 else Path(".")) / "report.html"
    if output.suffix.lower() not in (".html", ".htm") or output.is_dir():
        raise ResultsError(f"--output {output}: not the name of an HTML file (expected FILE.html)")
    runs = [open_run(path) for path in paths]
    # Drawing is imported only once the input is known to be good: a mistyped name is answered at once.
    from analysis.report import write_report

    folder = write_report(runs, output)
    print(f"report: {output}")
    print(f"figures: {folder.path} ({folder.written} figures, SVG and PNG)")
    return 0
