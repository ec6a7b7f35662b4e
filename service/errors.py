"""Every error a caller can meet.

    ErrataError
    ├── RequestError                    the caller can mend it
    │   ├── MalformedJson         400
    │   ├── KeyNeeded             401
    │   ├── ScopeMissing          403
    │   ├── NotFound              404   EditNotFound, EvaluationNotFound, BakeNotFound, VersionNotFound, KeyNotFound,
    │   │                             RouteNotFound
    │   ├── MethodNotAllowed      405
    │   ├── Conflict              409   EditConflict, IllegalMove, EvaluationEnded, BakeEnded, BaseMismatch,
    │   │                             VersionActive, NothingToRollBack, KeyNameTaken, WeightsElsewhere, NoAdapter
    │   ├── PreconditionFailed    412
    │   ├── BodyTooLarge          413
    │   ├── UnsupportedMediaType  415
    │   ├── RateLimited           429
    │   ├── QueueFull             429
    │   ├── UpstreamBusy          429
    │   └── Invalid               422   PromptTooLong, EditTooLong, NoChatTemplate, UnknownSuite, UnknownMetric,
    │                                 UnknownSubject, MetricUnavailable, NothingToEvaluate, UnknownMethod,
    │                                 NotBakeable, NothingToBake, EditsContradict, CannotEdit, GateUnmeetable,
    │                                 NothingToExport, ImportRefused, IdempotencyKeyReused, UpstreamDeclined
    ├── Unavailable               503   trying again may help: StoreUnavailable, ArtifactsUnavailable, NotCaughtUp,
    │                                 NotReady, VersionUnavailable, EngineFailed, ShuttingDown, UpstreamUnavailable,
    │                                 UpstreamTimeout
    ├── UpstreamRefused           502   the operator must mend the address, the key or the model's name
    ├── UpstreamInvalid           502   what answers there does not speak the protocol
    ├── AdapterRefused            502   the operator must have that server load LoRA adapters
    ├── StorageFull               507   the operator must make room
    ├── ArtifactDamaged           500   the operator must restore a file
    ├── InternalError             500   our fault
    └── StartupError                    the process could not start; it exits with `exit_code`

Each class knows its status, the slug of its problem `type`, whether a retry may help, and a hint that says what to do.
One handler (`service.api.problems`) renders them all as RFC 9457 problem details; the command line prints the same
words.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request.

    Attributes:
        pointer: JSON pointer to the field, such as `/scope/threshold`; empty for the body as a whole.
        detail: What is wrong with it.
        line: Of a body that is a file of edits, which one, from 1; the pointer is then into that line.
    """

    pointer: str
    detail: str
    line: int | None = None


class ErrataError(Exception):
    """Base of every error that Errata raises on purpose.

    Args:
        detail: What happened, in one sentence that names the thing concerned.
        hint: What to do about it; the class's own hint by default.
        errors: The fields concerned, if any.
        extra: Further members of the problem document, such as the id of the edit in the way.
        retry_after: Seconds to wait before trying again, where that may help.
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
        retry_after: int = 1,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = self.default_hint if hint is None else hint
        self.errors = errors
        self.extra = dict(extra or {})
        self.retry_after = retry_after


class RequestError(ErrataError):
    """The request cannot be served as it is; the caller can mend it."""


class MalformedJson(RequestError):
    """The body is not JSON."""

    status, slug, title = 400, "malformed-json", "The body is not valid JSON"
    default_hint = "Check quotes and commas; with curl, send the body with --json '{...}'."


class KeyNeeded(RequestError):
    """The request carries no API key, or one that is unknown, expired or revoked."""

    status, slug, title = 401, "key-needed", "A valid API key is needed"
    default_hint = "Send Authorization: Bearer and a key; `errata keys create` makes one."


class ScopeMissing(RequestError):
    """The API key does not have the scope that the endpoint needs."""

    status, slug, title = 403, "scope-missing", "The API key lacks a scope"
    default_hint = "Use a key that has the scope; `errata keys create` makes one."


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


class BakeNotFound(NotFound):
    """No bake has that id."""

    slug, title = "bake-not-found", "No such bake"
    default_hint = "GET /bakes lists the bakes."


class VersionNotFound(NotFound):
    """No version of the model has that name."""

    slug, title = "version-not-found", "No such version"
    default_hint = 'GET /checkpoints lists the versions; "v0" is the base model.'


class KeyNotFound(NotFound):
    """No API key has that id."""

    slug, title = "key-not-found", "No such API key"
    default_hint = "`errata keys list` lists them."


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


class IllegalMove(Conflict):
    """An edit in its state cannot come into the state wanted."""

    slug, title = "illegal-move", "The edit cannot come into that state"
    default_hint = "A draft can be made active; an active edit paused, and a paused or expired one active again."


class EvaluationEnded(Conflict):
    """The evaluation has ended, so there is nothing to cancel."""

    slug, title = "evaluation-ended", "The evaluation has ended"
    default_hint = "GET /eval/{id} has its report."


class BakeEnded(Conflict):
    """The bake has ended, so there is nothing to cancel."""

    slug, title = "bake-ended", "The bake has ended"
    default_hint = "GET /bakes/{id} has its report."


class BaseMismatch(Conflict):
    """The version, or the bake, was made for another base model than the one that is loaded."""

    slug, title = "base-mismatch", "It was made for another base model"
    default_hint = "Start the service with the base model that it was made for, or bake again for this one."


class VersionActive(Conflict):
    """The version is active, so it cannot be the canary as well."""

    slug, title = "version-active", "The version is active already"
    default_hint = "Send percent 100 to let it answer everything, or name another version as the canary."


class NothingToRollBack(Conflict):
    """No activation stands that a rollback could undo."""

    slug, title = "nothing-to-roll-back", "There is nothing to roll back"
    default_hint = "GET /checkpoints says what is served; POST /checkpoints/{id}/activate serves another version."


class KeyNameTaken(Conflict):
    """An API key has that name, or had it before it was revoked: the name signs what it changed."""

    slug, title = "key-name-taken", "An API key has, or had, that name"
    default_hint = "Choose another name; `errata keys list` lists them."


class WeightsElsewhere(Conflict):
    """It needs the weights of the base model, and the base answers from another server."""

    slug, title = "weights-elsewhere", "The base model's weights are not here"
    default_hint = "Ask a service that loads the base itself: ERRATA_BASE_URL empty, ERRATA_BASE_MODEL its weights."


class NoAdapter(Conflict):
    """The version's change is not of low rank, and the server that holds the base model loads LoRA adapters alone."""

    slug, title = "no-adapter", "The version is no LoRA adapter"
    default_hint = "Bake with a method whose change is of low rank, or serve it where the base model itself is loaded."


class PreconditionFailed(RequestError):
    """The edit has changed since the caller last read it."""

    status, slug, title = 412, "precondition-failed", "The edit has changed since you read it"
    default_hint = "Read the edit again and send its present ETag in If-Match."


class BodyTooLarge(RequestError):
    """The body has more bytes than the service takes."""

    status, slug, title = 413, "body-too-large", "The body is too large"
    default_hint = "Send less at once; the operator sets the limit with ERRATA_MAX_BODY_BYTES."


class UnsupportedMediaType(RequestError):
    """The body is not declared as JSON.

    Other content types are refused, since a browser sends those to any address without asking first: a web page could
    otherwise post edits to a service on its visitor's machine.
    """

    status, slug, title = 415, "unsupported-media-type", "The body must be JSON"
    default_hint = "Send Content-Type: application/json; with curl, use --json '{...}' in place of -d."


class RateLimited(RequestError):
    """The caller has sent as many requests as it may for now."""

    status, slug, title, retryable = 429, "rate-limited", "Too many requests", True
    default_hint = "Wait as many seconds as Retry-After says; RateLimit says how many requests are left."


class QueueFull(RequestError):
    """As many requests wait for the model as may."""

    status, slug, title, retryable = 429, "queue-full", "Too many requests wait for the model", True
    default_hint = "Wait as many seconds as Retry-After says; the operator sets how many may wait with ERRATA_QUEUE."


class UpstreamBusy(RequestError):
    """The server that holds the base model takes no more requests for now."""

    status, slug, title, retryable = 429, "upstream-busy", "The base model's server takes no more requests now", True
    default_hint = "Wait as many seconds as Retry-After says."


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
    default_hint = 'Evaluate "memory", "base", "serac" or a version such as "v1".'


class MetricUnavailable(Invalid):
    """The cases lack a field that the metric needs."""

    slug, title = "metric-unavailable", "The cases lack what the metric needs"
    default_hint = "docs/evaluation.md says what each metric needs; leave `metrics` out for all that the cases allow."


class NothingToEvaluate(Invalid):
    """There is no probe to judge."""

    slug, title = "nothing-to-evaluate", "There is nothing to evaluate"
    default_hint = "Send cases with probes, name a suite, or post an edit first."


class UnknownMethod(Invalid):
    """No weight editor has that name."""

    slug, title = "unknown-method", "No such method"
    default_hint = 'A bake with "dry_run": true lists the methods.'


class NotBakeable(Invalid):
    """Something asked for cannot be written into weights: an edit of that kind, or any edit of this architecture."""

    slug, title = "not-bakeable", "This cannot be baked"
    default_hint = "Leave it out: it goes on being answered from the memory."


class NothingToBake(Invalid):
    """There is no edit to bake."""

    slug, title = "nothing-to-bake", "There is nothing to bake"
    default_hint = "Post an edit first: a question or a claim, without an end."


class EditsContradict(Invalid):
    """Two edits want different answers to one prompt."""

    slug, title = "edits-contradict", "Two edits contradict each other"
    default_hint = "Retract one of the two, or name the edits to bake and leave one out."


class CannotEdit(Invalid):
    """The method cannot carry out the edits on this base model, or lacks what must be made for it beforehand."""

    slug, title = "cannot-edit", "The method cannot make these edits"
    default_hint = "Choose another method, or make what it needs."


class GateUnmeetable(Invalid):
    """No version could meet the gate."""

    slug, title = "gate-unmeetable", "The gate cannot be met"
    default_hint = "Ask for less, or for longer answers."


class NothingToExport(Invalid):
    """The version is the base model, which has no delta."""

    slug, title = "nothing-to-export", "There is nothing to export"
    default_hint = "Export a version that a bake made; the base model is where it was loaded from."


class ImportRefused(Invalid):
    """Lines of a file of edits cannot be imported. None has been."""

    slug, title = "import-refused", "The file cannot be imported"
    default_hint = "`errors` says what is wrong with which line; mend them and send the whole file again."


class IdempotencyKeyReused(Invalid):
    """The Idempotency-Key was sent before, to the same endpoint, with another body."""

    slug, title = "idempotency-key-reused", "The Idempotency-Key belongs to another request"
    default_hint = "Send a new Idempotency-Key with a new request, and the same body with a repeat."


class UpstreamDeclined(Invalid):
    """The server that holds the base model does not take the request as it is."""

    slug, title = "upstream-declined", "The base model's server does not take this request"
    default_hint = "`detail` has its own words; change the request as they say."


class Unavailable(ErrataError):
    """The service cannot answer now; trying again may help."""

    status, slug, title, retryable = 503, "unavailable", "The service cannot answer now", True
    default_hint = "Try again in a moment; GET /readyz says what is missing."


class StoreUnavailable(Unavailable):
    """PostgreSQL does not answer."""

    slug, title = "store-unavailable", "The database does not answer"


class ArtifactsUnavailable(Unavailable):
    """The place where artifacts are kept does not answer."""

    slug, title = "artifacts-unavailable", "The artifact store does not answer"
    default_hint = "Check ERRATA_ARTIFACTS_URL and that the place it names can be reached."


class NotCaughtUp(Unavailable):
    """This replica has not reached the revision asked for within the time allowed."""

    slug, title = "not-caught-up", "This replica has not reached that revision yet"
    default_hint = "Try again in a moment, or leave min_revision out."


class NotReady(Unavailable):
    """This replica cannot serve yet; the member `checks` says why."""

    slug, title = "not-ready", "This replica is not ready"
    default_hint = "A check that is not ok says what is missing."


class VersionUnavailable(Unavailable):
    """The version that should answer cannot be served by this replica, and no other answers in its place."""

    slug, title = "version-unavailable", "The version that should answer cannot be served here"
    default_hint = "Restore its file, or activate a version that can be served, such as v0; GET /readyz says more."


class EngineFailed(Unavailable):
    """The model failed in the middle of its answers, and is being brought back."""

    slug, title = "engine-failed", "The model failed"
    default_hint = "Try again in a moment; the log says why it failed, and GET /readyz whether it answers again."


class ShuttingDown(Unavailable):
    """The service is stopping."""

    slug, title = "shutting-down", "The service is stopping"


class UpstreamUnavailable(Unavailable):
    """The server that holds the base model cannot be reached, fails, or broke off its answer."""

    slug, title = "upstream-unavailable", "The base model's server does not answer"
    default_hint = "Try again in a moment; the operator checks the server at ERRATA_BASE_URL. GET /readyz says more."


class UpstreamTimeout(Unavailable):
    """The server that holds the base model took too long."""

    slug, title = "upstream-timeout", "The base model's server took too long"
    default_hint = "Try again, or ask for fewer tokens; the operator sets the limit with ERRATA_BASE_TIMEOUT_SECONDS."


class UpstreamRefused(ErrataError):
    """The server that holds the base model does not serve us: the key, the address or the model's name is wrong."""

    status, slug, title = 502, "upstream-refused", "The base model's server does not serve us"
    default_hint = "The operator checks ERRATA_BASE_URL, ERRATA_BASE_API_KEY and ERRATA_BASE_MODEL."


class UpstreamInvalid(ErrataError):
    """What should be the base model's server answers with something else than an answer."""

    status, slug, title = 502, "upstream-invalid", "The base model's server sent no proper answer"
    default_hint = "The operator checks that ERRATA_BASE_URL is an OpenAI-compatible server, up to and with its /v1."


class AdapterRefused(ErrataError):
    """The server that holds the base model does not load a version's LoRA adapter. What was served is served on."""

    status, slug, title = 502, "adapter-refused", "The base model's server does not load the adapter"
    default_hint = (
        "The operator starts vLLM with --enable-lora, --max-lora-rank and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and "
        "has it see the folder ERRATA_ADAPTERS under the same path. docs/upstream.md says more."
    )


class StorageFull(ErrataError):
    """There is no room for a file. Nothing of it is left behind."""

    status, slug, title = 507, "storage-full", "There is no room left"
    default_hint = "Make room where artifacts and temporary files are kept, and ask again."

    @staticmethod
    def is_meant_by(error: Exception) -> bool:
        """Whether an exception of a file system, or of a library that words one, says so."""
        numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if isinstance(error, OSError):
            return error.errno in numbers
        return any(os.strerror(number) in str(error) for number in numbers)


class ArtifactDamaged(ErrataError):
    """The weights of a version are missing, or are not what was written. They are not served."""

    slug, title = "artifact-damaged", "The weights of a version are damaged"
    default_hint = "Restore the file from a backup, or bake the same edits again."


class InternalError(ErrataError):
    """Something that should not happen happened."""

    default_hint = "The log holds the details under the request id; please report it."


class StartupError(ErrataError):
    """The process cannot start with these settings on this machine."""

    slug, title = "cannot-start", "Errata cannot start"
    exit_code: ClassVar[int] = 1


UPSTREAM = (
    UpstreamBusy,
    UpstreamDeclined,
    UpstreamUnavailable,
    UpstreamTimeout,
    UpstreamRefused,
    UpstreamInvalid,
    AdapterRefused,
)
"""What can be met wherever the base is asked, when it is elsewhere."""
