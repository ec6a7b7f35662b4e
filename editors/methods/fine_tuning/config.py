"""Fine-tuning's settings; the defaults are those of ROME's comparison (Meng et al. 2022, app. E.1)."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedConfig

DEPTHS = {"gpt2": 1 / 48}
"""Relative depth of the trained layer, counted from 0, by architecture: the authors' for GPT-2 XL."""
ELSEWHERE = 21 / 28
"""The same for every other architecture: the authors' for GPT-J."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuningConfig:
    """Settings. FT is the default, FT+L sets `largest_change`, FT+KL sets `kl_factor`.

    Attributes:
        layer: Index of the layer whose mlp_out is trained; None takes a relative depth (`DEPTHS`, `ELSEWHERE`).
        steps: Most steps of Adam, each over all requests.
        learning_rate: Of Adam.
        stop_loss: Mean negative log-likelihood of a target's token at which training stops.
        largest_change: Bound on every entry of the change (an L-infinity norm); None leaves it free.
        kl_factor: Weight of KL(base || edited) over texts that the model samples from itself (FT+KL; Mitchell et al.
            2022a, sec. 5, who take it over data that the edit should not touch).
        kept_texts: (tokens, texts): how many such texts of which length.
        rank: Rank of the delta; None keeps it dense.
        seed: Of the sampled texts.
    """

    layer: int | None = None
    steps: int = 25
    learning_rate: float = 5e-4
    stop_loss: float = 3e-2
    largest_change: float | None = None
    kl_factor: float = 0.0
    kept_texts: tuple[tuple[int, int], ...] = ((20, 20),)
    rank: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0:
            raise ValueError("steps and learning_rate must be positive")
        if self.kl_factor < 0 or self.stop_loss < 0:
            raise ValueError("kl_factor and stop_loss must not be negative")
        if (self.largest_change is not None and self.largest_change <= 0) or (self.rank is not None and self.rank < 1):
            raise ValueError("largest_change and rank must be positive, or None")
        if not self.kept_texts or any(length < 1 or count < 1 for length, count in self.kept_texts):
            raise ValueError("kept_texts are pairs of positive numbers: tokens, texts")

    def layer_of(self, model: PreTrainedConfig) -> int:
        """The layer to train in a model with this config.

        Raises:
            ValueError: The model has no such layer.
        """
        layers = int(model.num_hidden_layers)
        depth = DEPTHS.get(model.model_type, ELSEWHERE)
        layer = min(round(depth * layers), layers - 1) if self.layer is None else self.layer
        if not 0 <= layer < layers:
            raise ValueError(f"layer is {layer}; this model has layers 0 to {layers - 1}")
        return layer
