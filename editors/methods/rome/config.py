"""ROME's settings. Where paper and code differ (weight decay, KL factor, clamp), the defaults are the code's."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedConfig

DEPTHS = {
    "gpt2": 17 / 48,  # GPT-2 XL, the paper's layer 18 counted from 1
    "gptj": 5 / 28,
    "gpt_neox": 15 / 44,
    "opt": 1 / 3,
    "llama": 5 / 32,
    "mistral": 5 / 32,
    "qwen2": 5 / 28,
    "qwen3": 5 / 28,
    "gemma2": 5 / 26,
    "phi3": 5 / 32,
}
"""Relative depth of the edited layer, counted from 0, by architecture.

GPT-2 and GPT-J are the authors', from causal tracing; the others are their neighbours' by kinship: early-middle layers,
earlier in models with rotary positions. Trace your own model where the choice matters.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RomeConfig:
    """Settings.

    Attributes:
        layer: Index of the layer whose mlp_out is edited; None takes the architecture's relative depth (`DEPTHS`).
        prefixes: (tokens, texts): how many sampled texts of which length stand before the prompt, besides none.
        prompts_per_step: Of the prompts, the bare one among them, how many a step of v* scores; they take turns. None
            scores all at every step, as the authors' code does.
        steps: Most steps of Adam for v*.
        learning_rate: Of Adam.
        stop_loss: Mean negative log-likelihood of a target's token at which v* is good enough.
        kl_factor: Weight of the KL term on "{subject} is a".
        weight_decay: Weight of ||delta|| / ||v_0||^2, delta being v* - v_0.
        clamp: ||delta|| is kept within this many ||v_0||.
        ridge: Added to C's diagonal, relative to its mean.
        all_forms: Average k* over the forms of the subject as well, with equal weights: a text that begins with it may
            have another last token for it than the prompt, and so another key.
        whole_change: Choose v* by what the edited matrix does at every token of a prompt from the subject on, and not
            at the subject's last token alone (eq. 4). In a small model keys are alike, and what an edit adds at the
            tokens around its subject can undo it.
        ends_answer: Train the token that ends an answer after the target as well, for a model that answers and stops.
        original_keys: Mix the averaged key and the bare prompt's in the update as the authors' code does, which can
            disable the model (Gupta et al. 2024, r-ROME); by default the averaged key stands everywhere.
        seed: Of the prefixes.
    """

    layer: int | None = None
    prefixes: tuple[tuple[int, int], ...] = ((5, 10), (10, 10))
    prompts_per_step: int | None = None
    steps: int = 20
    learning_rate: float = 0.5
    stop_loss: float = 5e-2
    kl_factor: float = 0.0625
    weight_decay: float = 0.5
    clamp: float = 4.0
    ridge: float = 1e-4
    all_forms: bool = False
    whole_change: bool = False
    ends_answer: bool = False
    original_keys: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0 or self.clamp <= 0:
            raise ValueError("steps, learning_rate and clamp must be positive")
        if min(self.kl_factor, self.weight_decay, self.ridge, self.stop_loss) < 0:
            raise ValueError("kl_factor, weight_decay, ridge and stop_loss must not be negative")
        if self.prompts_per_step is not None and self.prompts_per_step < 2:
            raise ValueError("prompts_per_step must be 2 or more, or None")
        if any(length < 1 or count < 1 for length, count in self.prefixes):
            raise ValueError("prefixes are pairs of positive numbers: tokens, texts")

    def layer_of(self, model: PreTrainedConfig) -> int:
        """The layer to edit in a model with this config.

        Raises:
            ValueError: The model has no such layer.
        """
        layers = int(model.num_hidden_layers)
        layer = round(DEPTHS[model.model_type] * layers) if self.layer is None else self.layer
        if not 0 <= layer < layers:
            raise ValueError(f"layer is {layer}; this model has layers 0 to {layers - 1}")
        return layer
