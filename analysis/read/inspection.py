"""Looks at a results file in a process of its own before this one opens it.

The HDF5 library trusts what a file says of itself: damaged bytes can end the process that reads them, keep it busy for
ever, or lead it to other files. So a child reads everything first, and what becomes of it is told in one line.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import h5py

# By then a file has been read. Of the processor's time: that a machine is busy does not make a file a damaged one.
SECONDS, SLOWEST_BYTES_A_SECOND = 20, 2**22
# comigs stores arrays as they are. Small ones may be claimed in full before all of their rows are written.
SMALL_BYTES = 2**26
LONGEST_REASON_BYTES = 300


def complaint(path: Path) -> str:
    """What keeps the file from being read in this process; empty: nothing that shows."""
    status = path.stat()
    return _complaint(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _complaint(path: Path, changed: int, size: int) -> str:
    """`changed` and `size` are the file's: another state of it is looked at again."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_child(path, size, sending)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        reason = pipe.read(LONGEST_REASON_BYTES).decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) == signal.SIGPROF:
            return f"the HDF5 library does not come to an end with it in {_seconds(size)} s: it is damaged"
        return f"the HDF5 library crashes on it ({signal.Signals(os.WTERMSIG(status)).name}): it is damaged"
    return reason


def _seconds(size: int) -> int:
    return SECONDS + size // SLOWEST_BYTES_A_SECOND


def _be_the_child(path: Path, size: int, sending: int) -> None:
    """Never returns. An exception is nothing to tell: the parent will meet it too, and name its place."""
    reason = ""
    with suppress(BaseException):  # whatever happened, a child ends here
        faulthandler.disable()
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, _seconds(size))
        with h5py.File(path, "r", locking=False) as file:
            reason = next(_reasons(file, size), "")
    os.write(sending, reason.encode("utf-8", "replace")[:LONGEST_REASON_BYTES])
    os._exit(0)


def _reasons(file: h5py.File, size: int) -> Iterator[str]:
    """Reads everything; yields what must not be read by anybody."""
    links: list[str] = []
    file.visititems_links(
        lambda name, link: links.append(name) if isinstance(link, h5py.ExternalLink) else None
    )
    yield from (f"{name!r:.100} is a link to another file" for name in links)
    names: list[str] = []
    file.visit(names.append)
    scales: set[int] = set()
    for name in ("/", *names):
        item = file[name]
        for attribute in item.attrs:
            item.attrs.get(attribute)
        if isinstance(item, h5py.Dataset):
            if item.external or (item.is_virtual and not _views_own_data(item)):
                yield f"the data of {name!r:.100} are in another file"
            elif item.shape is not None and item.nbytes > max(size, SMALL_BYTES):
                yield f"{name!r:.100} claims {item.nbytes} bytes of a file of {size}"
            else:
                _read(item, scales)


def _views_own_data(dataset: h5py.Dataset) -> bool:
    """A view of arrays of the same file, which are no views themselves."""
    sources = [(source.file_name, dataset.file.get(source.dset_name)) for source in dataset.virtual_sources()]
    return all(
        name == "." and isinstance(array, h5py.Dataset) and not array.is_virtual for name, array in sources
    )


def _read(dataset: h5py.Dataset, scales: set[int]) -> None:
    """The data, and the scales of the dimensions. The library looks through the whole file for the name of a scale: it
    is asked once for each, `scales` being the addresses of those that have been."""
    with suppress(Exception):  # of one array; others may be worse
        dataset[()]
        for dimension in dataset.dims:
            for scale in dimension.values():
                if (address := h5py.h5o.get_info(scale.id).addr) not in scales:
                    scales.add(address)
                    str(scale.name)
