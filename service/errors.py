"""Every error a caller can meet.

    ErrataError
    ├── RequestError                    the caller can mend it
    │   ├── MalformedJson         400
    │   ├── NotFound              404   EditNotFound, EvaluationNotFound, VersionNotFound, RouteNotFound
    │   ├── MethodNotAllowed      405
    │   ├── Conflict              409   EditConflict, EvaluationEnded
    │   ├── PreconditionFailed    412
    │   ├── UnsupportedMediaType  415
    │   └── Invalid               422   PromptTooLong, EditTooLong, NoChatTemplate, UnknownSuite, UnknownMetric,
    │                                 UnknownSubject, MetricUnavailable, NothingToEvaluate
    ├── Unavailable               503   trying again may help: StoreUnavailable, NotCaughtUp, NotReady, ShuttingDown
    ├── InternalError             500   our fault
    └── StartupError                    the process could not start; it exits with `exit_code`

Each class knows its status, the slug of its problem `type`, whether a retry may help, and a hint that says what to do.
One handler (`service.api.problems`) renders them all as RFC 9457 problem details; the command line prints the same
words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request.

    Attributes:
        pointer: JSON pointer to the field, such as `/scope/threshold`; empty for the body as a whole.
        detail: What is wrong with it.
    """

    pointer: str
    detail: str


class ErrataError(Exception):
    """Base of every error that Errata raises on purpose.

    Args:
        detail: What happened, in one sentence that names the thing concerned.
        hint: What to do about it; the class's own hint by default.
        errors: The fields concerned, if any.
        extra: Further members of the problem document, such as the id of the edit in the way.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        errors: tuple[FieldError, ...] = (),
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = self.default_hint if hint is None else hint
        self.errors = errors
        self.extra = dict(extra or {})


class RequestError(ErrataError):
    """The request cannot be served as it is; the caller can mend it."""


class MalformedJson(RequestError):
    """The body is not JSON."""

    status, slug, title = 400, "malformed-json", "The body is not valid JSON"
    default_hint = "Check quotes and commas; with curl, send the body with --json '{...}'."


class NotFound(RequestError):
    """Nothing has that name."""

    status, slug, title = 404, "not-found", "Not found"


class RouteNotFound(NotFound):
    """No endpoint has that path."""

    slug, title = "route-not-found", "No such endpoint"
    default_hint = "GET /openapi.json lists every endpoint."


class EditNotFound(NotFound):
    """No edit has that id, or it has been retracted."""

    slug, title = "edit-not-found", "No such edit"
    default_hint = "GET /edits lists the edits in force."


class EvaluationNotFound(NotFound):
    """No evaluation has that id."""

    slug, title = "evaluation-not-found", "No such evaluation"
    default_hint = "GET /eval lists the evaluations."


class VersionNotFound(NotFound):
    """No version of the model has that name."""

    slug, title = "version-not-found", "No such version"
    default_hint = 'Ask for "active", or for "v0", the base model.'


class MethodNotAllowed(RequestError):
    """The path exists and does not take this method."""

    status, slug, title = 405, "method-not-allowed", "Method not allowed"
    default_hint = "The header Allow lists the methods that the path takes."


class Conflict(RequestError):
    """The request contradicts the present state."""

    status, slug, title = 409, "conflict", "Conflict"


class EditConflict(Conflict):
    """Another edit already answers this prompt."""

    slug, title = "edit-conflict", "Another edit already answers this prompt"
    default_hint = "Send its id as `supersedes` to replace it, or retract it first."


class EvaluationEnded(Conflict):
    """The evaluation has ended, so there is nothing to cancel."""

    slug, title = "evaluation-ended", "The evaluation has ended"
    default_hint = "GET /eval/{id} has its report."


class PreconditionFailed(RequestError):
    """The edit has changed since the caller last read it."""

    status, slug, title = 412, "precondition-failed", "The edit has changed since you read it"
    default_hint = "Read the edit again and send its present ETag in If-Match."


class UnsupportedMediaType(RequestError):
    """The body is not declared as JSON.

    Other content types are refused, since a browser sends those to any address without asking first: a web page could
    otherwise post edits to a service on its visitor's machine.
    """

    status, slug, title = 415, "unsupported-media-type", "The body must be JSON"
    default_hint = "Send Content-Type: application/json; with curl, use --json '{...}' in place of -d."


class Invalid(RequestError):
    """The request is well formed and says something impossible."""

    status, slug, title = 422, "invalid-request", "The request is not valid"
    default_hint = "`errors` says what is wrong with which field; GET /openapi.json describes them all."


class PromptTooLong(Invalid):
    """Prompt and answer do not fit in the model's context."""

    slug, title = "prompt-too-long", "The prompt does not fit in the model's context"
    default_hint = "Shorten the prompt or lower max_new_tokens."


class EditTooLong(Invalid):
    """The edit leaves no room in the model's context for a question and its answer."""

    slug, title = "edit-too-long", "The edit does not fit in the model's context"
    default_hint = 'Shorten the prompt or the target, or use "answer": "verbatim".'


class NoChatTemplate(Invalid):
    """Messages were sent to a model that has no chat template."""

    slug, title = "no-chat-template", "The base model has no chat template"
    default_hint = "Send `prompt` instead of `messages`."


class UnknownSuite(Invalid):
    """No suite has that name."""

    slug, title = "unknown-suite", "No such suite"
    default_hint = "docs/evaluation.md lists the suites."


class UnknownMetric(Invalid):
    """No metric has that name."""

    slug, title = "unknown-metric", "No such metric"
    default_hint = "docs/evaluation.md lists the metrics."


class UnknownSubject(Invalid):
    """Nothing that can be evaluated has that name."""

    slug, title = "unknown-subject", "Nothing of that name can be evaluated"
    default_hint = 'Evaluate "memory", "base" or "serac".'


class MetricUnavailable(Invalid):
    """The cases lack a field that the metric needs."""

    slug, title = "metric-unavailable", "The cases lack what the metric needs"
    default_hint = "docs/evaluation.md says what each metric needs; leave `metrics` out for all that the cases allow."


class NothingToEvaluate(Invalid):
    """There is no probe to judge."""

    slug, title = "nothing-to-evaluate", "There is nothing to evaluate"
    default_hint = "Send cases with probes, name a suite, or post an edit first."


class Unavailable(ErrataError):
    """The service cannot answer now; trying again may help."""

    status, slug, title, retryable = 503, "unavailable", "The service cannot answer now", True
    default_hint = "Try again in a moment; GET /readyz says what is missing."


class StoreUnavailable(Unavailable):
    """PostgreSQL does not answer."""

    slug, title = "store-unavailable", "The database does not answer"


class NotCaughtUp(Unavailable):
    """This replica has not reached the revision asked for within the time allowed."""

    slug, title = "not-caught-up", "This replica has not reached that revision yet"
    default_hint = "Try again in a moment, or leave min_revision out."


class NotReady(Unavailable):
    """This replica cannot serve yet; the member `checks` says why."""

    slug, title = "not-ready", "This replica is not ready"
    default_hint = "A check that is not ok says what is missing."


class ShuttingDown(Unavailable):
    """The service is stopping."""

    slug, title = "shutting-down", "The service is stopping"


class InternalError(ErrataError):
    """Something that should not happen happened."""

    default_hint = "The log holds the details under the request id; please report it."


class StartupError(ErrataError):
    """The process cannot start with these settings on this machine."""

    slug, title = "cannot-start", "Errata cannot start"
    exit_code: ClassVar[int] = 1
