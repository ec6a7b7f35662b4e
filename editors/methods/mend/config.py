"""MEND's settings: those of an edit, and those that its editor's networks were made and trained with."""

from __future__ import annotations

from dataclasses import dataclass

from editors.model.loading import BaseModel

MOST_AT_ONCE = 25
"""Simultaneous edits up to which MEND holds in the paper's table 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MendConfig:
    """Settings of an edit. Everything else was settled when the editor was trained.

    Attributes:
        scale: Multiplies the learned step sizes.
        rank: Most rank of a site's change; None keeps one for each token, and never more than the site has.
        certainty: An edit is settled until no token of its target is less likely than this after the edit's own prompt;
            None takes the networks' step as it comes, as the paper does.
        steps: Most steps of descent of an edit that does not hold at any length of its step.
    """

    scale: float = 1.0
    rank: int | None = None
    certainty: float | None = 0.8
    steps: int = 15

    def __post_init__(self) -> None:
        if self.scale <= 0 or (self.rank is not None and self.rank < 1):
            raise ValueError("scale and rank must be positive, or rank None")
        if self.certainty is not None and not 0.5 <= self.certainty < 1:
            raise ValueError(f"certainty is {self.certainty}; it must be at least 0.5 and below 1, or None")
        if self.steps < 0:
            raise ValueError("steps must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """The editor's networks.

    Attributes:
        blocks: How many of the last blocks have their MLPs edited: every projection in, and the one out.
        rank: Of the networks' matrices U V, and at most their width; the paper's is 1920, for matrices of 4096.
        step_size: alpha at the start.
        end: The token that ends an answer and is edited in after every target; None where the base's answers do not
            end. Training finds out.
    """

    blocks: int = 3
    rank: int = 128
    step_size: float = 5e-4
    end: int | None = None

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.rank < 1 or self.step_size <= 0:
            raise ValueError("blocks, rank and step_size must be positive")

    def sites(self, base: BaseModel) -> dict[str, tuple[int, int]]:
        """The edited modules of a base and their shapes, (out, in), first block first.

        Raises:
            UnknownArchitecture: Weight editing does not know the model.
            ValueError: The model has fewer blocks.
        """
        layers, anatomy = int(base.model.config.num_hidden_layers), base.anatomy
        if self.blocks > layers:
            raise ValueError(f"blocks is {self.blocks}; this model has {layers}")
        paths = [
            anatomy.within(layer, part)
            for layer in range(layers - self.blocks, layers)
            for part in (*anatomy.mlp_in, anatomy.mlp_out)
        ]
        return {path: _shape(base, path) for path in paths}

    def untouched(self, base: BaseModel) -> list[str]:
        """The blocks before the edited ones, which compute the same whatever the edit."""
        layers = int(base.model.config.num_hidden_layers)
        return [base.anatomy.layer.format(layer=layer) for layer in range(layers - self.blocks)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MendRecipe:
    """What a training depends on beside its base and its cases.

    Attributes:
        network: What is trained.
        steps: Most steps of Adam.
        edits_per_step: Edits in a step, dealt into groups that are in force together; one group may hold more.
        edits_at_once: Most edits in a group; sizes are drawn from 1 to this, small ones more often (log-uniformly).
        paraphrases: In-scope probes of each edit in a step, beside its own prompt.
        kept: Out-of-scope probes of each edit in a step.
        c_edit: Weight of L_edit against the KL term.
        learning_rate: Of the networks at its peak; it rises over the first 5% of the steps and falls as a cosine.
        step_size_learning_rate: Of log alpha, likewise.
        validation_share: Of the subjects, that are kept from training.
        look_steps: Steps between two looks at the validation cases.
        patience: Looks without a better ES - DD after which training ends.
        seed: Of the drawing of cases and of the networks' start.
    """

    network: NetworkConfig = NetworkConfig()
    steps: int = 3000
    edits_per_step: int = 8
    edits_at_once: int = MOST_AT_ONCE
    paraphrases: int = 1
    kept: int = 2
    c_edit: float = 0.02
    learning_rate: float = 1.2e-3
    step_size_learning_rate: float = 1e-2
    validation_share: float = 0.05
    look_steps: int = 200
    patience: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.edits_per_step, self.edits_at_once, self.kept, self.look_steps, self.patience) < 1:
            raise ValueError("steps, edits_per_step, edits_at_once, kept, look_steps and patience must be positive")
        if min(self.c_edit, self.learning_rate, self.step_size_learning_rate) <= 0 or self.paraphrases < 0:
            raise ValueError("c_edit and learning rates must be positive, and paraphrases not negative")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share is {self.validation_share}; it must lie between 0 and 1")


def _shape(base: BaseModel, path: str) -> tuple[int, int]:
    weight = f"{path}.weight"
    n_out, n_in = base.anatomy.oriented(weight, base.model.get_parameter(weight)).shape
    return n_out, n_in
