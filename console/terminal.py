"""What every Python program here does about its standard streams, whatever the environment says they are."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

FAILED, INTERRUPTED, NOBODY_READS = 1, 130, 141


class Parser(argparse.ArgumentParser):
    """argparse passes over help that cannot be written; here it fails like any other output."""

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file)


class _Remarks(io.TextIOWrapper):
    """Standard error. Where nobody takes it, what it would say is lost, and the work goes on; an error has a code."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(text)


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Runs `main` on the command line's words and ends the process with its code.

    Words and file names are UTF-8 whatever the locale says (bytes that are none of it stay as they are). What
    a stream's encoding cannot show is shown escaped. Output that cannot be written is a failure, and told of;
    a reader that has gone (`... | head`) ends it without a word, as the signal would.
    """
    _insist_on_utf8()
    _keep_places_of_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        encoding = sys.stderr.encoding
        sys.stderr = _Remarks(sys.stderr.detach(), encoding, errors="backslashreplace", line_buffering=True)
    try:
        code = _code_of(main)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        code = NOBODY_READS
    except KeyboardInterrupt:
        code = _told("interrupted", INTERRUPTED)
    except MemoryError:
        code = _told("out of memory", FAILED)
    except OSError as error:
        code = _told(f"{error.filename or 'standard output'}: {error.strerror or error}", FAILED)
    _leave(code)


def _code_of(main: Callable[[list[str]], int]) -> int:
    try:
        return main(sys.argv[1:])
    except SystemExit as left:  # argparse, after --help
        return left.code if isinstance(left.code, int) else 0


def _insist_on_utf8() -> None:
    if sys.getfilesystemencoding().lower().replace("-", "") != "utf8" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _keep_places_of_closed_streams() -> None:
    """No file that is opened later becomes standard output or error; what is printed into a closed one is lost, and
    told of."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)  # the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:  # print(file=None) is to standard output
        sys.stderr = open(os.devnull, "w", encoding="utf-8")


def _told(message: str, code: int) -> int:
    try:
        if sys.stderr is not None:
            print(f"error: {message}", file=sys.stderr)
    except OSError:
        pass  # nobody listens there either; the code says it
    return code


def _leave(code: int) -> NoReturn:
    # What could not be written must not be tried once more, with a traceback, when the interpreter ends.
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            code = code or FAILED
    sys.exit(code)
