"""The command line: `python -m analysis report RUN...`, `insight RUN...`, `export RUN`, and an item of the paper
each."""

from __future__ import annotations

import argparse
import os
import re
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.draw.own_files import check_own
from analysis.export.folder import Request as ExportRequest
from analysis.export.folder import write_export
from analysis.insight.page import write_insight
from analysis.page.drawings import FigureFolder
from analysis.page.report import write_report
from analysis.paper.choice import Request
from analysis.paper.items import ITEMS, Item
from analysis.read.index import read_index
from analysis.read.results import ResultsError, open_run, results_file
from analysis.read.run import Run
from console.mistakes import JobError
from console.name_lists import names_of
from console.terminal import Parser

BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 1 failed, 2 bad input."""
    options = _parser().parse_args(arguments)
    os.umask(os.umask(0) | stat.S_IWOTH)  # nothing that is written is writable for everyone
    try:
        return options.command(options)
    except (ResultsError, JobError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"error: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m analysis", description="Tables, figures and reports from results.h5.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_page(
        commands,
        "report",
        write_report,
        "write one self-contained HTML page about one or several runs",
        "Writes one self-contained HTML page about one or several runs, and its figures (SVG, PNG) beside "
        "it. Runs that differ in their seed only are averaged; works while a run goes on.",
    )
    _add_page(
        commands,
        "insight",
        write_insight,
        "write a page about what experts and routers learnt",
        "Writes one self-contained HTML page, and its figures (SVG, PNG) beside it, about routing entropy "
        "and load, the generalist by word frequency, the experts' principal angles, the aggregation's "
        "weights and the gap between validation and test. Sections whose data a run does not hold say so.",
    )
    _add_export(commands)
    for name, item in ITEMS.items():
        _add_item(commands, name, item)
    return parser


def _add_page(commands, name: str, write: Callable, help_: str, description: str) -> None:
    command = commands.add_parser(name, help=help_, description=description)
    command.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run folder (holding results.h5) or a results file"
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="FILE.html",
        help=f"the page (default: {name}.html in the run folder; in the current folder for several runs)",
    )
    command.set_defaults(command=lambda options: _page(name, write, options))


def _add_export(commands) -> None:
    command = commands.add_parser(
        "export",
        help="write a user's model for other programs: PEFT adapters, a router, a merged mixture, soft prompts",
        description="Writes a folder with what a user of a finished run ended with: a PEFT adapter of each expert "
        "and of attention alone, the router, mixture.json, and a card; or its soft prompts, as PEFT adapters where "
        "PEFT has such a model (docs/export.md).",
    )
    command.add_argument("run", metavar="RUN", help="a run folder (holding results.h5) or a results file")
    command.add_argument("--user", required=True, metavar="NAME", help="whose model")
    command.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="a folder that is not there yet (default: export-NAME in the run folder)",
    )
    command.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="where the run's base is now (default: where it was then)",
    )
    command.add_argument(
        "--mixture",
        action="store_true",
        help="also the whole mixture, merged, as a model of transformers (Mixtral, Qwen2-MoE, Qwen3-MoE); for bases "
        "of the Llama family",
    )
    command.add_argument(
        "--rslora",
        action="store_true",
        help="write adapters with use_rslora, lora_alpha as in the run; else lora_alpha / r is the same scale, "
        "which every server reads right",
    )
    command.set_defaults(command=_export)


def _add_item(commands, name: str, item: Item) -> None:
    description = (
        f"{item.title}: from the finished runs of a sweep (python -m jobs.sweep). A row with several values of an "
        "option counts with the one that has the best mean validation perplexity."
    )
    # argparse takes a % in help texts for a format.
    words = {"help": item.title, "description": description}
    command = commands.add_parser(name, **{key: text.replace("%", "%%") for key, text in words.items()})
    command.add_argument(
        "--scale", help="the sweep's scale: its index is runs/SCALE/index.json (default: paper)"
    )
    command.add_argument("--index", type=Path, metavar="FILE", help="another index.json than the scale's")
    command.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the files go (default: paper/ beside the index)"
    )
    command.add_argument(
        "--dataset",
        metavar="NAME[,NAME]",
        default=item.dataset,
        help=f"these data sets only ({item.dataset or 'default: all'})",
    )
    command.set_defaults(bars=False, command=lambda options: _item(name, item.title, options))
    if item.has_bars:
        command.add_argument("--bars", action="store_true", help="bars instead of heat maps")


def _page(
    name: str, write: Callable[[Sequence[Run], Path], FigureFolder], options: argparse.Namespace
) -> int:
    # The same file named twice is one run, not two seeds.
    paths = list({results_file(path).resolve(): results_file(path) for path in options.runs}.values())
    output = options.output or (paths[0].parent if len(paths) == 1 else Path(".")) / f"{name}.html"
    if output.suffix.lower() not in (".html", ".htm") or output.is_dir():
        raise ResultsError(f"--output {output}: not the name of an HTML file (expected FILE.html)")
    check_own(output)
    folder = write([open_run(path) for path in paths], output)
    print(f"{name}: {output}")
    print(f"figures: {folder.path} ({folder.written} figures, SVG and PNG)")
    return 0


def _export(options: argparse.Namespace) -> int:
    request = ExportRequest(options.user, options.output, options.model, options.mixture, options.rslora)
    print(f"export: {write_export(open_run(options.run), request)}")
    return 0


def _item(name: str, title: str, options: argparse.Namespace) -> int:
    # An index that is named may be of any scale, unless the scale is named too.
    index = read_index(options.index or Path("runs") / (options.scale or "paper") / "index.json")
    scale = options.scale or (None if options.index else "paper")
    if scale not in (None, index.scale):
        raise ResultsError(f"{index.path}: of scale '{index.scale}' (expected --scale {scale})")
    output = options.output or index.path.parent / "paper"
    if output.exists() and not output.is_dir():
        raise ResultsError(f"--output {output}: is a file (expected a folder)")
    numbered = re.fullmatch(r"(table|figure)(\d+)", name)
    heading = f"{numbered[1].capitalize()} {numbered[2]}: {title}" if numbered else title
    names = tuple(names_of(options.dataset, f"--dataset {options.dataset}")) if options.dataset else ()
    known = {entry.dataset for entry in index.entries}
    if options.dataset != ITEMS[name].dataset and (unknown := [word for word in names if word not in known]):
        raise ResultsError(
            f"--dataset {options.dataset}: {index.path} has no run on {', '.join(map(repr, unknown))} (it has some on "
            f"{', '.join(sorted(known)) or 'none'})"
        )
    request = Request(name, index, output, names, options.bars)
    for path in ITEMS[name].make(request, heading):
        print(path)
    return 0
