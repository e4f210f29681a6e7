"""What a command inherits from whoever starts it: variables of any kind, and streams that take no output."""

from __future__ import annotations

import fcntl
import os
import random
import re
import signal
import struct
import termios
import threading
from contextlib import suppress

from . import trial
from .commands import OF_ONE_PROCESS, Command, Scene, Surroundings, unlike
from .trial import CORRECT_RUN, NAMED_STOP, OTHER, Ended, Verdict

# Environments -----------------------------------------------------------------------------------------------

# One set at a time is drawn from each line; None: the variable is not there.
OUTER_JOB = {"SLURM_JOB_ID": "4711", "SLURM_JOBID": "4711", "SLURM_NTASKS": "8", "SLURM_JOB_NUM_NODES": "2"}
OUTER_STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NODELIST": "n[1-2]"}
OUTER_RANK = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "3"}
GARBAGE = ("", "-1", "0", "two", "99999999999999999999", "1e9", "1,2", "\udcff", "x" * 5000)
VARIABLES: tuple[tuple[dict[str, str | None], ...], ...] = (
    (OUTER_JOB, OUTER_JOB | OUTER_STEP, OUTER_STEP, {"SLURM_JOB_ID": ""}),
    tuple({"SLURM_CPUS_PER_TASK": value} for value in GARBAGE),
    (
        {"SLURM_JOB_END_TIME": "1"},
        {"SLURM_RESTART_COUNT": "many"},
        {"SLURM_NTASKS": "0"},
        {"SLURM_GTIDS": "x"},
    ),
    (
        {"SBATCH_EXPORT": "NONE", "SBATCH_PARTITION": "none"},
        {"SBATCH_ARRAY_INX": "1-4", "SLURM_ARRAY_TASK_ID": "9"},
    ),
    (OUTER_RANK, OUTER_RANK | {"OMPI_UNIVERSE_SIZE": "8", "OMPI_APP_CTX_NUM_PROCS": "8"}),
    ({"PMI_RANK": "1", "PMI_SIZE": "4"}, {"PMIX_RANK": "1"}, {"PMIX_NAMESPACE": "outer", "PMIX_RANK": "2"}),
    tuple(
        {"LC_ALL": value}
        for value in ("C", "POSIX", "tr_TR.UTF-8", "de_DE.ISO-8859-1", "xx_YY", "", "C.utf8")
    ),
    tuple({"LANG": value, "LC_NUMERIC": "de_DE.UTF-8"} for value in ("C", "tr_TR", "ja_JP.eucJP", "\udcff")),
    (
        {"PYTHONUTF8": "0"},
        {"PYTHONUTF8": "1"},
        {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
    ),
    tuple({"PYTHONIOENCODING": value} for value in ("ascii", "latin-1", "utf-16", "ascii:strict")),
    tuple({"MPLBACKEND": value} for value in ("Qt5Agg", "aggg", "", "module://nowhere")),
    tuple({"HDF5_USE_FILE_LOCKING": value} for value in ("TRUE", "FALSE", "BEST_EFFORT", "perhaps", "")),
    tuple({"HDF5_PLUGIN_PATH": value} for value in ("/nonexistent", "/etc/passwd", ":", "")),
    tuple({"OMP_NUM_THREADS": value} for value in GARBAGE),
    tuple({"MKL_NUM_THREADS": value, "OMP_PROC_BIND": "maybe"} for value in GARBAGE),
    tuple({"CUDA_VISIBLE_DEVICES": value} for value in (*GARBAGE, "7", "GPU-none")),
    tuple({"COLUMNS": value, "LINES": value} for value in ("0", "1", "20", "-5", "wide", "100000")),
    ({"TERM": "dumb"}, {"TERM": "none"}, {"TERM": None}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}),
    ({"HOME": None}, {"HOME": "/nonexistent"}, {"HOME": "/dev/null"}, {"HOME": ""}, {"HOME": "/proc"}),
    ({"TMPDIR": "/nonexistent"}, {"TMPDIR": "/proc"}, {"TMPDIR": "/dev/null"}, {"TMPDIR": ""}),
    ({"TZ": "Nowhere/City"}, {"TZ": ":/etc/passwd"}, {"TZ": "XXX-25:99"}, {"SOURCE_DATE_EPOCH": "soon"}),
    ({"PYTHONPATH": f"/nonexistent:{trial.ROOT}"}, {"PYTHONPATH": f"/etc/passwd:{trial.ROOT}:"}),
    (
        {"PYTHONWARNINGS": "error"},
        {"PYTHONWARNINGS": "nonsense"},
        {"PYTHONHASHSEED": "7"},
        {"PYTHONOPTIMIZE": "2"},
    ),
    ({"XDG_CONFIG_HOME": "/dev/null", "XDG_CACHE_HOME": "/proc"}, {"MPLCONFIGDIR": "/proc"}),
    ({"MATPLOTLIBRC": "matplotlibrc"}, {"MATPLOTLIBRC": "/nonexistent"}),
)
MATPLOTLIBRC = (
    "text.usetex: True\nbackend: Qt5Agg\nfont.family: No Such Font\nlines.linewidth: 5\nno.such.key: 1\n"
)


def environment(scene: Scene, source: random.Random) -> tuple[str, Verdict]:
    command = source.choice(OF_ONE_PROCESS)
    drawn: dict[str, str | None] = {}
    for sets in source.sample(VARIABLES, source.randint(2, 5)):
        drawn |= source.choice(sets)
    (scene.place.folder / "matplotlibrc").write_text(MATPLOTLIBRC)
    before = ["env", *(word for name, value in drawn.items() if value is None for word in ("-u", name))]
    before += [f"{name}={value}" for name, value in drawn.items() if value is not None]
    ended = scene.run(command.words(scene.place, scene.place.output), command.module, before)
    names = (*drawn, str(scene.place.folder), "--", "srun")
    verdict = trial.judge(ended, names, trial.beginning(command.module), may_run=True)
    if verdict.kind == CORRECT_RUN:
        verdict = judge_made(scene, command, ended.printed)
    shown = " ".join(name if value is None else f"{name}={value[:20]!a}" for name, value in drawn.items())
    return f"{command.name}: {shown}", verdict


def judge_made(scene: Scene, command: Command, printed: str | None) -> Verdict:
    """Of a command that ended well: the same files as without a disturbance, and nothing lost. `printed` None:
    nobody can know."""
    if printed == "":
        return Verdict(OTHER, "nothing was printed")
    others = unlike(scene.undisturbed.of(command), scene.place.output) if command.makes else ()
    return Verdict(OTHER, f"other results: {', '.join(others)[:200]}") if others else Verdict(CORRECT_RUN)


# Streams ----------------------------------------------------------------------------------------------------

LOSING = ("closed", "full disk", "read only", "full pipe", "left pipe")
KINDS = (*LOSING, "terminal of 0 columns", "terminal of 20 columns")
LOSS = ("standard output", "No space left", "Bad file descriptor", "temporarily unavailable", "Broken pipe")
PIPE_CODES = (-signal.SIGPIPE, 128 + signal.SIGPIPE)
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Stream:
    """Where output goes; "file": a usual one."""

    def __init__(self, kind: str) -> None:
        self.kind, self._seen, self._reader = kind, b"", None
        self._other: int | None = None
        if kind == "file":
            self.descriptor = os.memfd_create("output")
        elif kind == "full disk":
            self.descriptor = os.open("/dev/full", os.O_WRONLY)
        elif kind in ("closed", "read only"):
            self.descriptor = os.open("/dev/null", os.O_RDONLY)
        elif kind == "full pipe":
            self._other, self.descriptor = os.pipe()
            os.set_blocking(self.descriptor, False)
            with suppress(BlockingIOError):
                while True:
                    os.write(self.descriptor, bytes(4096))
        elif kind == "left pipe":
            reading, self.descriptor = os.pipe()
            os.close(reading)
        else:
            self._other, self.descriptor = os.openpty()
            columns = int(kind.split()[2])
            fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
            self._reader = threading.Thread(target=self._read)
            self._reader.start()

    def end(self) -> str | None:
        """What came there; None: nobody can know."""
        if self.kind == "file":
            self._seen = os.pread(self.descriptor, 1 << 24, 0)
        os.close(self.descriptor)
        if self._reader:
            self._reader.join()
        if self._other is not None:
            os.close(self._other)
        return None if self.kind in LOSING else CONTROLS.sub("", self._seen.decode("utf-8", "replace"))

    def _read(self) -> None:
        with suppress(OSError):  # all writers have left
            while piece := os.read(self._other, 4096):
                self._seen += piece


def stream(scene: Scene, source: random.Random) -> tuple[str, Verdict]:
    command, kind = source.choice(OF_ONE_PROCESS), source.choice(KINDS)
    output, errors = source.choice(
        ((kind, "file"), (kind, "file"), ("file", kind), (kind, source.choice(KINDS)))
    )
    closing = [sign for sign, of in ((">&-", output), ("2>&-", errors)) if of == "closed"]
    before = ["sh", "-c", f'exec "$@" {" ".join(closing)}', "sh"] if closing else []
    words = [*before, *scene.line(command.words(scene.place, scene.place.output), command.module)]
    out, err = Stream(output), Stream(errors)
    process = trial.start(words, scene.place.folder, False, err.descriptor, out.descriptor)
    code = trial.code_of(process, scene.seconds)
    printed, told = out.end(), err.end()
    what = f"{command.name}: output {output}, errors {errors}"
    return what, judge_stream(scene, command, Ended(code, told or "", printed or ""), output, errors)


def judge_stream(scene: Scene, command: Command, ended: Ended, output: str, errors: str) -> Verdict:
    """What is lost is told, in an exit code at least; what a command makes is whole all the same."""
    is_lost = output in LOSING
    if output == "left pipe" and not command.makes and ended.code in (0, *PIPE_CODES):
        return Verdict(CORRECT_RUN)  # its reader has seen enough
    if errors in LOSING and ended.code == 1 and is_lost:
        verdict = Verdict(NAMED_STOP)
    else:
        codes = {1: NAMED_STOP} if is_lost else {}
        verdict = trial.judge(ended, LOSS, trial.beginning(command.module), not is_lost, codes)
    made = judge_made(scene, command, None if is_lost else ended.printed)
    return made if OTHER not in verdict.kind and made.kind == OTHER else verdict


CLASSES = (Surroundings("environments", environment), Surroundings("output streams", stream))
