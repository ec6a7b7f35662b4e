"""Who runs PostgreSQL's programs: this user; or, since PostgreSQL refuses root, an account made for it."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import StartupError

ACCOUNT = "pgserver"


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended: its exit status, and what it wrote to standard output and standard error."""

    status: int
    output: str


class Account:
    """The account that owns the cluster's files.

    Raises:
        StartupError: This user is root, and the account PostgreSQL needs then could not be made.
    """

    def __init__(self) -> None:
        self._entry = _entry() if os.geteuid() == 0 else None

    def own(self, path: Path) -> None:
        """Give a file or folder to the account and let the account reach it.

        As root this adds the right to pass through (o+x) to those parents that lack it.
        """
        if self._entry:
            os.chown(path, self._entry.pw_uid, self._entry.pw_gid)
            self.let_reach(path)

    def let_reach(self, path: Path) -> None:
        """Let the account pass through the parents of `path`."""
        for parent in path.parents if self._entry else ():
            mode = parent.stat().st_mode
            if not mode & 0o001:
                parent.chmod(mode | 0o001)

    def run(self, program: Path, *arguments: str) -> Completed:
        """Run a program to its end, in the root folder, without the `PG*` variables and locale of this process."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        identity: dict[str, Any] = {}
        if self._entry:
            identity = {"user": self._entry.pw_uid, "group": self._entry.pw_gid, "extra_groups": []}
        # A file and not a pipe: a server left running would hold a pipe open, and we would wait for its end.
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            done = subprocess.run(  # noqa: S603 - our own program and arguments, no shell
                [program, *arguments],
                cwd="/",
                env=environment | {"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                **identity,
            )
            output.seek(0)
            return Completed(done.returncode, output.read())


def _entry() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        pass
    try:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT]
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - fixed words
        return pwd.getpwnam(ACCOUNT)
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        raise StartupError(
            f"PostgreSQL does not run as root, and the account {ACCOUNT!r} could not be made: "
            f"{getattr(error, 'stderr', None) or error}.",
            hint="Run Errata as an ordinary user, or set ERRATA_DATABASE_URL to a PostgreSQL that runs elsewhere.",
        ) from error
