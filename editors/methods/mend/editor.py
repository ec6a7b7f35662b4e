"""MEND (Mitchell et al. 2022a): one gradient for each edit, made local and general by a trained network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from editors.delta import Delta, LowRank, low_rank
from editors.method import EditRequest, origin
from editors.methods.mend.config import MendConfig
from editors.methods.mend.decompose import edit_gradients, passes_of
from editors.methods.mend.files import TrainedEditor, find
from editors.methods.mend.settling import OwnPrompts, settle
from editors.model.anatomy import anatomy_of
from editors.model.loading import BaseModel
from editors.model.views import view
from editors.surgery.room import within_memory
from editors.surgery.verify import refuse_non_finite


class Mend:
    """All requests at once: the changes of each are summed, and settled together."""

    name = "mend"
    config = MendConfig
    tolerance = 1e-4

    @within_memory
    def prepare(
        self, base: BaseModel, requests: Sequence[EditRequest], config: MendConfig, *, assets: Sequence[Path] = ()
    ) -> Delta:
        """Compute the delta; see `editors.method.Method.prepare`.

        One pass forward and back, and a few more where the edit is settled, whatever comes of it: whether the targets
        are likelier is for `editors.guard` to say.

        Args:
            base: What to edit.
            requests: At least one; paraphrases are not used.
            config: Settings.
            assets: Folders, one of which holds the base's trained editor (`errata train mend`).

        Raises:
            UnknownArchitecture: Weight editing does not know the model.
            EmptyTarget: A target has no token.
            ContextExceeded: A prompt is too long with its target.
            TrainedEditorNotFound: No folder holds an editor, or its file is damaged.
            TrainedEditorMismatch: The editor belongs to another base model.
            NonFiniteEdit: The edit came out infinite or undefined.
            EditFailed: Memory ran out.
            ValueError: There are no requests.
        """
        if not requests:
            raise ValueError("there is nothing to edit without requests")
        anatomy_of(base.model.config)  # an unknown architecture has no editor, and none can be trained
        trained = find(base, assets)
        factors = _changes(base, trained, requests, config)
        delta = Delta(
            base=base.fingerprint,
            changes={f"{path}.weight": LowRank(u.cpu(), v.cpu()) for path, (u, v) in factors.items()},
            origins=(origin(self.name, config, requests),),
        )
        refuse_non_finite(delta)
        return _within_rank(delta, config.rank)


def _changes(
    base: BaseModel, trained: TrainedEditor, requests: Sequence[EditRequest], config: MendConfig
) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Each module's change as factors, [out, tokens] and [tokens, in]."""
    networks, end = trained.networks, trained.config.end
    model = view(base.model).requires_grad_(requires_grad=False)
    gradients = edit_gradients(base, model, networks.sites, requests, end=end)
    with torch.no_grad():
        changes = {path: (config.scale * u, v) for path, (u, v) in networks(gradients).items()}
    if config.certainty is None:
        return changes
    owners = {path: own.edits for path, own in gradients.items()}
    prompts = OwnPrompts(model, passes_of(base, requests, end=end), trained.config.untouched(base))
    return settle(prompts, changes, owners, config)


def _within_rank(delta: Delta, rank: int | None) -> Delta:
    """The delta with no site's rank beyond what was asked for, nor beyond what the site can have."""
    changes = {
        site: change if change.rank <= min(*change.shape, rank or change.rank) else low_rank(change, rank)
        for site, change in delta.changes.items()
        if isinstance(change, LowRank)
    }
    return Delta(base=delta.base, changes=changes, origins=delta.origins)
