"""Which files were written by this package: only those are replaced."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from analysis.read.results import ResultsError
from console.whole_file import write_whole

MADE_BY = "comigs analysis"
_LONGEST_HEAD = 4096
# How the beginning of each kind of file tells that it was written here.
_HEADS = {
    ".html": rb"<!DOCTYPE html>\n<html lang=\"en\"><head>.*<title>comigs: ",
    ".htm": rb"<!DOCTYPE html>\n<html lang=\"en\"><head>.*<title>comigs: ",
    ".svg": rb".*<dc:title>" + MADE_BY.encode() + rb"</dc:title>",
    ".png": rb"\x89PNG\r\n\x1a\n.*Software\0" + MADE_BY.encode(),
    ".md": rb"### [^\n]* \[[^\n]*\]\n\n\|",
    ".tex": rb"% Needs \\usepackage\{booktabs\}\.\n",
    ".csv": rb"(source,section,row,column,mean,std,seeds,rank|setting,base,method,seed,stage,round,user,category)[,\n]",
}


def check_own(path: Path) -> None:
    """Raises ResultsError where the file is there and somebody else's: it would be lost."""
    if not os.path.lexists(path):
        return
    try:
        with path.open("rb") as file:
            head = file.read(_LONGEST_HEAD)
    except OSError:
        head = b""
    if not re.match(_HEADS[path.suffix.lower()], head, re.DOTALL):
        raise ResultsError(
            f"{path}: is there already, and not made by this command; move it away or choose another --output"
        )


def write_own(files: Mapping[Path, bytes]) -> None:
    """Writes each file whole; raises ResultsError, and writes none, where one is somebody else's."""
    for path in files:
        check_own(path)
    for path, data in files.items():
        write_whole(path, data)
