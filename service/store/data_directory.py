"""The data directory: made when missing, and held by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from service.errors import StartupError

HINT = "Set ERRATA_DATA_DIR to a directory that this user may write to."


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Create the directory with its parents and hold its lock, which the kernel drops however the process ends.

    Raises:
        StartupError: It cannot be made or written to, or another process holds it.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("a+", encoding="ascii")
    except OSError as error:
        reason = "it is not a directory" if isinstance(error, FileExistsError) else error.strerror
        raise StartupError(f"The data directory {data_dir} cannot be used: {reason}.", hint=HINT) from error
    with lock:
        _take(lock, data_dir)
        yield


def _take(lock: TextIO, data_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        raise StartupError(
            f"The data directory {data_dir} is in use by {f'process {holder}' if holder else 'another process'}.",
            hint="Stop that process, or set ERRATA_DATA_DIR to another directory, "
            "or let both share one database with ERRATA_DATABASE_URL.",
        ) from None
    except OSError as error:
        raise StartupError(f"{data_dir / 'lock'} cannot be locked: {error.strerror}.", hint=HINT) from error
