"""Fine-tuning of one MLP matrix on the edits (FT, FT+L, FT+KL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import PreTrainedModel

from editors.delta import Delta, Dense, low_rank
from editors.errors import NonFiniteEdit
from editors.method import EditRequest, origin
from editors.methods.fine_tuning.config import FineTuningConfig
from editors.model.loading import BaseModel
from editors.model.views import view
from editors.surgery.batch import Targets, targets_of
from editors.surgery.quick import Quick
from editors.surgery.room import within_memory
from editors.surgery.sampling import sampled_texts
from editors.surgery.tails import Tails
from editors.surgery.trace import reweighted
from editors.surgery.verify import verify


class FineTuning:
    """All requests at once, with their paraphrases, in one change."""

    name = "fine_tuning"
    config = FineTuningConfig
    tolerance = 1e-4

    @within_memory
    def prepare(
        self, base: BaseModel, requests: Sequence[EditRequest], config: FineTuningConfig, *, assets: Sequence[Path] = ()
    ) -> Delta:
        """Compute the delta; see `editors.method.Method.prepare`.

        Args:
            base: What to edit.
            requests: At least one; paraphrases are trained on too.
            config: Settings.
            assets: Not used: fine-tuning needs nothing made beforehand.

        Raises:
            UnknownArchitecture: Weight editing does not know the model.
            EmptyTarget: A target has no token.
            ContextExceeded: A prompt is too long with its target.
            NonFiniteEdit: Training went astray.
            IneffectiveEdit: A target is no likelier than before.
            EditFailed: Memory ran out.
            ValueError: There are no requests, or the model has no such layer.
        """
        if not requests:
            raise ValueError("there is nothing to edit without requests")
        path = base.anatomy.within(config.layer_of(base.model.config), base.anatomy.mlp_out)
        targets = targets_of(base, requests)
        change = Dense(_trained(base, path, targets, config))
        delta = Delta(
            base=base.fingerprint,
            changes={f"{path}.weight": change if config.rank is None else low_rank(change, config.rank)},
            origins=(origin(self.name, config, requests),),
        )
        verify(base, delta, requests)
        return delta


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """Texts whose continuations should stay, and what the base says after each of their tokens.

    Attributes:
        texts: Whole, with the work of the layers below the trained one done.
        unedited: Log-probabilities at their tokens: [tokens, vocabulary].
    """

    texts: Tails
    unedited: Tensor

    @classmethod
    def of(cls, base: BaseModel, model: PreTrainedModel, config: FineTuningConfig, quick: Quick) -> _Kept:
        texts = sampled_texts(base, config.kept_texts, seed=config.seed, quick=quick)
        sequences = [base.tokenizer(text)["input_ids"] for text in texts if text]
        tails = Tails.of(base, model, sequences, [0] * len(sequences), config.layer_of(base.model.config))
        with torch.no_grad():
            return cls(tails, tails.log_probabilities(model, tails.occupied))

    def divergence(self, model: PreTrainedModel) -> Tensor:
        """KL(base || edited), mean over the tokens."""
        edited = self.texts.log_probabilities(model, self.texts.occupied)
        return kl_div(edited, self.unedited, log_target=True, reduction="batchmean")


def _trained(base: BaseModel, path: str, targets: Targets, config: FineTuningConfig) -> Tensor:
    """The change to the module's weight, [out, in] in float32, that makes the targets likely."""
    quick = Quick(base, at_once=True)
    model = quick(view(base.model).requires_grad_(requires_grad=False))
    kept = _Kept.of(base, model, config, quick) if config.kl_factor else None
    weight = base.anatomy.oriented(f"{path}.weight", model.get_parameter(f"{path}.weight"))
    change = torch.zeros(weight.shape, device=weight.device, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=config.learning_rate)
    for _ in range(config.steps):
        with torch.enable_grad(), reweighted(model, path, change):
            nll = -targets.mean_log_probabilities(targets.batch.log_probabilities(model, targets.places)).mean()
            loss = nll if kept is None else nll + config.kl_factor * kept.divergence(model)
        if not loss.isfinite():
            raise NonFiniteEdit(
                "The loss of fine-tuning is not finite.", hint="Lower the learning rate; prefer bfloat16 to float16."
            )
        if nll < config.stop_loss:
            break
        (change.grad,) = torch.autograd.grad(loss, [change])
        optimizer.step()
        if config.largest_change is not None:
            with torch.no_grad():
                change.clamp_(-config.largest_change, config.largest_change)
    return change.detach().cpu()
