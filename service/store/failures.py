"""What the database's failures are called outside the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc
from sqlalchemy.engine import ExceptionContext

from service.errors import EditConflict, EditNotFound, KeyNameTaken, StoreUnavailable
from service.store.tables import ACTIVE_KEY, KEY_NAME, SUPERSEDES


def without_contents(context: ExceptionContext) -> None:
    """Leave of an error what failed: PostgreSQL's details quote what was written, and a log would show prompts."""
    error, told = context.original_exception, context.sqlalchemy_exception
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    if primary is not None:
        error.args = (primary,)
        if told is not None:
            told.args = (f"({type(error).__name__}) {primary}",)


@contextmanager
def translated() -> Iterator[None]:
    """Turn SQLAlchemy's exceptions into ours.

    Raises:
        StoreUnavailable: PostgreSQL cannot be reached, goes away, or keeps us waiting too long.
        EditConflict: Two active edits would share a key.
        EditNotFound: An edit supersedes one that does not exist.
        KeyNameTaken: Two keys would share a name.
    """
    try:
        yield
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        raise StoreUnavailable(f"PostgreSQL does not answer: {reason(error)}.") from error
    except exc.IntegrityError as error:
        name = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
        if name == ACTIVE_KEY:
            raise EditConflict("Another active edit already answers this prompt.") from error
        if name == SUPERSEDES:
            raise EditNotFound("The edit to supersede does not exist.") from error
        if name == KEY_NAME:
            raise KeyNameTaken("A key has, or had, that name.") from error
        raise


def reason(error: Exception) -> str:
    """The driver's own words, on one line."""
    words = str(error.orig) if isinstance(error, exc.DBAPIError) else str(error)
    return " ".join(words.split()).rstrip(".")
