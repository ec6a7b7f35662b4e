"""Links in the OpenAPI document: from what an endpoint answers to what can be asked about it next."""

from __future__ import annotations

from typing import Any


def links(parameter: str, *operations: str, pointer: str = "/id") -> dict[str, Any]:
    """Links to these operations, whose parameter is what `pointer` finds in the answer."""
    return {
        operation: {"operationId": operation, "parameters": {parameter: f"$response.body#{pointer}"}}
        for operation in operations
    }
