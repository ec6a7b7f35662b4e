"""The database that the settings name, for a command that works on it beside the service, or before there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.settings import Settings
from service.store.embedded import Cluster, EmbeddedPostgres
from service.store.migrate import migrate


@contextmanager
def reached(settings: Settings) -> Iterator[str]:
    """The URL of a database that is ready to use. An embedded one that no service runs, runs while the block does.

    Raises:
        StartupError: There is no database there and none can be made, or it does not answer.
    """
    if settings.database_url:
        migrate(settings.database_url)
        yield settings.database_url
        return
    cluster = Cluster(settings.data_dir.expanduser().resolve() / "postgres")
    if cluster.folder.exists() and cluster.running():
        url = cluster.start()  # which takes over the server that runs, and leaves it running
        migrate(url)
        yield url
        return
    with EmbeddedPostgres(settings.data_dir) as url:
        migrate(url)
        yield url
