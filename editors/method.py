"""What a weight editor is: edit requests in, a delta out, and no trace left on the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from editors.delta import Delta, Origin
from editors.model.loading import BaseModel

Config = TypeVar("Config", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRequest:
    """What a weight editor is asked for.

    Attributes:
        prompt: Such as `The prime minister of the UK is`.
        target: What should follow it, such as `Boris Johnson`.
        subject: The thing it is about, as written in the prompt; found there when None.
        paraphrases: Other prompts that the target should follow, for methods that train on them.
    """

    prompt: str
    target: str
    subject: str | None = None
    paraphrases: tuple[str, ...] = ()


class Method(Protocol[Config]):
    """A weight editor. It holds nothing: the same arguments give the same delta, bit for bit on one machine.

    Attributes:
        name: In the registry, in manifests and in the API.
        config: The type of its settings: a frozen dataclass whose fields all have defaults.
        tolerance: Most by which a logit of a float32 model may differ between the view and an export of the delta.
    """

    name: str
    config: type[Any]
    tolerance: float

    def prepare(
        self, base: BaseModel, requests: Sequence[EditRequest], config: Config, *, assets: Sequence[Path] = ()
    ) -> Delta:
        """Compute the delta that makes the requests true; the base is as it was, also when this raises.

        Args:
            base: What to edit.
            requests: At least one.
            config: The method's settings.
            assets: Folders with what belongs to one base and is made beforehand: statistics, trained editors.

        Raises:
            EditorError: The requests cannot be carried out on this base; the error says why.
            ValueError: There are no requests.
        """
        ...


def origin(method: str, config: Any, requests: Sequence[EditRequest]) -> Origin:
    """The record of a delta's making.

    Args:
        method: The method's name.
        config: Its settings, a dataclass.
        requests: What it was asked for, subjects filled in where it found them.
    """
    plain = json.loads(json.dumps({"config": asdict(config), "edits": [asdict(request) for request in requests]}))
    return Origin(method=method, config=plain["config"], edits=tuple(plain["edits"]))
