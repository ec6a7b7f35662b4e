"""What a load found, in figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from service.cli.load import Outcome

_PERCENTILES = (50, 90, 99)


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """For programs: counts, rates a second, and percentiles in milliseconds.

    Times are of the answers alone; a refusal is quick, and would make the service look so. `seconds` last until the
    end of the last request. `sent_late_ms` is how far the asking lagged behind its plan, which is in the latencies.
    """
    answered = [one for one in outcomes if one.answer is not None]
    seconds = max((one.done for one in outcomes), default=0.0)
    usages = [one.answer["usage"] for one in answered if one.answer is not None]
    tokens = sum(usage["completion_tokens"] for usage in usages)
    edited = sum(one.answer["source"] == "edit" for one in answered if one.answer is not None)
    return {
        "seconds": seconds,
        "requests": len(outcomes),
        "answered": len(answered),
        "errors": dict(Counter(one.status for one in outcomes if one.answer is None).most_common()),
        "by_edit": edited / len(answered) if answered else None,
        "prompt_tokens": sum(usage["prompt_tokens"] for usage in usages),
        "completion_tokens": tokens,
        "requests_per_second": len(answered) / seconds if answered else 0.0,
        "tokens_per_second": tokens / seconds if answered else 0.0,
        "latency_ms": _milliseconds([one.latency for one in answered]),
        "first_token_ms": _milliseconds([one.first - one.due for one in answered if one.first is not None]),
        "sent_late_ms": _milliseconds([one.sent - one.due for one in outcomes]),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed: always one that was seen."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _milliseconds(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {f"p{percent}": 1000 * percentile(seconds, percent) for percent in _PERCENTILES} | {
        "max": 1000 * max(seconds)
    }
