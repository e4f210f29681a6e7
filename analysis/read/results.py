"""Opens a run's results.h5 and gives its arrays as labelled xarray data.

    run = open_run("runs/quickstart/comigs-1g1s")
    run["perplexity"]                 # xarray.Dataset: train, validation, test by (round, user)
    run.array("routing", "score")     # xarray.DataArray, or None where the run has no finite value

Nothing here draws or averages: every figure and table starts from what this module returns.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

from analysis.read.inspection import complaint
from analysis.read.run import FILE_NAME, Run

SCHEMA_VERSIONS = ("1", "2")
GROUPS = (
    "users",
    "perplexity",
    "loss",
    "routing",
    "expert",
    "aggregation",
    "time",
    "communication",
    "memory",
    "before_aggregation/perplexity",
    "category",
    "prompt",
)
# An array over (user, user) is a mixing matrix: row = who receives, column = whose model it is.
SECOND_AXIS = {"user": "source_user"}
# How netCDF marks a scale that is a dimension's length only.
WITHOUT_LABELS = "This is a netCDF dimension but not a netCDF variable"
# What version 1 has under the name of a coordinate.
RENAMED = {("time", "round"): "total"}


class ResultsError(Exception):
    """A results file that cannot be used; the message is one line and names the file."""


def results_file(path: str | Path) -> Path:
    """The results file that a command-line argument names: the file, or the folder that holds it."""
    path = Path(path)
    try:
        if path.is_dir():
            if not (path / FILE_NAME).is_file():
                raise ResultsError(f"{path}: holds no {FILE_NAME} (expected a run folder or a results file)")
            return path / FILE_NAME
        if not path.exists():
            raise ResultsError(f"{path}: no such file or folder (expected a run folder or a results file)")
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror} (expected a run folder or a results file)") from error
    return path


def open_run(path: str | Path) -> Run:
    """Reads a run folder's results file whole; works while the run goes on. Raises ResultsError."""
    path = results_file(path)
    # A named pipe would be waited for.
    if not path.is_file() or not h5py.is_hdf5(path):
        raise ResultsError(f"{path}: not an HDF5 file (expected a comigs {FILE_NAME})")
    with reading(path) as file:
        return _read(path, file)


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """The open file; whatever goes wrong while it is read becomes one line that names it.

    Damaged bytes show as almost any exception of h5py, numpy or xarray, hence no list of them.
    """
    try:
        if found := complaint(path):
            raise ResultsError(f"{path}: cannot be read ({as_text(found)})")
        # No locks: a reader must never make the running job's next write fail.
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except ResultsError:
        raise
    except Exception as error:
        reason = as_text(str(error).partition("\n")[0]) or type(error).__name__
        raise ResultsError(f"{path}: cannot be read as HDF5 ({reason})") from error


def _read(path: Path, file: h5py.File) -> Run:
    attributes = {name: as_text(value) for name, value in file.attrs.items()}
    _check(path, file, attributes)
    coordinates = {name: _read_labels(file[name]) for name in ("round", "user")}
    arrays = {group: _read_group(path, file[group], coordinates) for group in GROUPS if group in file}
    coordinates["user"] = _distinct(coordinates["user"])
    rows = _finished_rows(coordinates["round"], arrays.values())
    if rows == 0:
        raise ResultsError(f"{path}: no finished round yet (expected at least round 0)")
    coordinates["round"] = coordinates["round"][:rows].astype(np.int64)
    if (np.diff(coordinates["round"]) <= 0).any():
        raise ResultsError(f"{path}: the rounds do not ascend (expected 0, 1, ...)")
    groups = {group: _dataset(path, group, content, coordinates) for group, content in arrays.items()}
    return Run(path, attributes, coordinates, groups)


def _check(path: Path, file: h5py.File, attributes: dict[str, str]) -> None:
    """Refuses a file that comigs did not write, or that a later comigs wrote."""
    for name in ("schema_version", "method"):
        if name not in attributes:
            raise ResultsError(f"{path}: not a comigs results file (the attribute '{name}' is missing)")
    for name, kind in (("round", h5py.Dataset), ("user", h5py.Dataset), ("perplexity", h5py.Group)):
        if not isinstance(file.get(name), kind):
            raise ResultsError(f"{path}: not a comigs results file ('/{name}' is missing)")
    version = attributes["schema_version"].strip().partition(".")[0]
    if version not in SCHEMA_VERSIONS:
        found, expected = attributes["schema_version"].strip(), " or ".join(SCHEMA_VERSIONS)
        raise ResultsError(f"{path}: results schema version '{found}' found, version {expected} expected")


def _read_group(path: Path, group: h5py.Group, labels: dict[str, np.ndarray]) -> dict[str, xr.Variable]:
    """The arrays that lie directly in the group; adds what labels their dimensions to `labels`."""
    arrays = {}
    for name in group:
        item = group[name]  # items() would give None for an object that is damaged
        # A group also holds its dimensions' labels, so that readers of this group alone find them.
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf" and not item.is_scale:
            notes = {key: as_text(item.attrs[key]) for key in ("units", "long_name") if key in item.attrs}
            arrays[name] = xr.Variable(_dimensions(path, item, labels), item[()], notes)
    return arrays


def _dimensions(path: Path, dataset: h5py.Dataset, labels: dict[str, np.ndarray]) -> tuple[str, ...]:
    names: list[str] = []
    for axis, dimension in enumerate(dataset.dims):
        if len(dimension) == 0:
            raise ResultsError(f"{path}: '{dataset.name}' has no dimension scale on axis {axis}")
        scale = dimension[0]
        name = posixpath.basename(scale.name)
        if name not in labels and not as_text(scale.attrs.get("NAME", "")).startswith(WITHOUT_LABELS):
            labels[name] = _read_labels(scale)
        names.append(SECOND_AXIS.get(name, f"{name}_2") if name in names else name)
    return tuple(names)


def _finished_rows(rounds: np.ndarray, groups: Iterable[dict[str, xr.Variable]]) -> int:
    """Rows that every array has: a write that was cut short must not show as half a round."""
    lengths = [
        array.sizes["round"] for content in groups for array in content.values() if "round" in array.dims
    ]
    # An array without any row is one that this run does not record.
    return min([len(rounds), *(length for length in lengths if length > 0)])


def _dataset(
    path: Path, group: str, arrays: dict[str, xr.Variable], coordinates: dict[str, np.ndarray]
) -> xr.Dataset:
    rows = len(coordinates["round"])
    kept = {}
    for name, array in arrays.items():
        if "round" in array.dims:
            if array.sizes["round"] == 0:
                continue
            array = array.isel(round=slice(0, rows))
        kept[RENAMED.get((group, name), name)] = array
    used = {dimension for array in kept.values() for dimension in array.dims}
    labels = {name: (name, values) for name, values in coordinates.items() if name in used}
    if "source_user" in used:
        labels["source_user"] = ("source_user", coordinates["user"])
    try:
        return xr.Dataset(kept, coords=labels)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ResultsError(
            f"{path}: the arrays of '{group}' do not fit the coordinates ({reason})"
        ) from error


def _read_labels(dataset: h5py.Dataset) -> np.ndarray:
    if h5py.check_string_dtype(dataset.dtype) is None:
        return dataset[()]
    return np.array([as_text(value) for value in dataset[()]], dtype=object)


def _distinct(names: np.ndarray) -> np.ndarray:
    """Labels must differ to select by them: a name's second bearer gets a number."""
    seen: dict[str, int] = {}
    labels = []
    for name in map(str, names):
        seen[name] = seen.get(name, 0) + 1
        labels.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return np.array(labels, dtype=object)


def as_text(value: object) -> str:
    """Any attribute or string of an HDF5 file as text that every output file accepts."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return "\n".join(as_text(item) for item in value.reshape(-1))
    # h5py hands undecodable bytes on as lone surrogates, which no output file accepts.
    return str(value).encode("utf-8", "replace").decode("utf-8")
