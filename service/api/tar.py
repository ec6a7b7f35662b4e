"""A folder as a tar archive, sent while it is read, with its length known beforehand."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

_CHUNK = 1 << 20
_END = b"\0" * 2 * tarfile.BLOCKSIZE


class TarResponse(StreamingResponse):
    """The files of a folder.

    Args:
        folder: Whose files, at any depth; they do not change meanwhile.
        name: Of the archive, and of the folder inside it.
        closing: What to close when it has been sent, or could not be.
    """

    media_type = "application/x-tar"

    def __init__(self, folder: Path, name: str, *, closing: AsyncExitStack) -> None:
        members = [_Member(path, f"{name}/{path.relative_to(folder).as_posix()}") for path in _files(folder)]
        length = sum(member.length for member in members) + len(_END)
        headers = {"Content-Length": str(length), "Content-Disposition": f'attachment; filename="{name}.tar"'}
        super().__init__(_blocks(members), headers=headers, media_type=self.media_type)
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and close what it was made from whatever happens."""
        async with self._closing:
            await super().__call__(scope, receive, send)


class _Member:
    """One file of an archive."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        info = tarfile.TarInfo(name)
        info.size = path.stat().st_size
        info.mtime = int(path.stat().st_mtime)
        self._header = info.tobuf()
        self._padding = b"\0" * (-info.size % tarfile.BLOCKSIZE)
        self.length = len(self._header) + info.size + len(self._padding)

    def blocks(self) -> Iterator[bytes]:
        """Header, content, and zeros up to a whole block."""
        yield self._header
        with self._path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield self._padding


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _blocks(members: list[_Member]) -> Iterator[bytes]:
    for member in members:
        yield from member.blocks()
    yield _END
