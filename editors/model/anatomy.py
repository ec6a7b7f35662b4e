"""Where the parts of each architecture are: one table, keyed on the config's `model_type`, never on a model's name.

Weight editors need it. Answering from memory does not, so a model that is missing here can still be served.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedConfig

from editors.errors import UnknownArchitecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """Module paths of one architecture, as `model.get_submodule` takes them.

    Attributes:
        layer: Path of a decoder layer, with `{layer}` for its index.
        attention: The attention block, within a layer.
        mlp_in: The projections into the MLP's inner width, within a layer; two where the MLP is gated.
        mlp_out: The projection back to the hidden width, within a layer: W_proj, the matrix that ROME edits.
        embeddings: The token embeddings.
        final_norm: The norm before the head.
        lm_head: The head.
        transposed: Whether a layer's linear weights are stored [in, out] (GPT-2's Conv1D) and not [out, in].
    """

    layer: str
    attention: str
    mlp_in: tuple[str, ...]
    mlp_out: str
    embeddings: str
    final_norm: str
    lm_head: str
    transposed: bool = False

    def within(self, layer: int, part: str) -> str:
        """The path of a part, such as `mlp_out`, of the layer at an index that counts from 0."""
        return f"{self.layer.format(layer=layer)}.{part}"


ANATOMIES = {
    "gpt2": Anatomy(
        layer="transformer.h.{layer}",
        attention="attn",
        mlp_in=("mlp.c_fc",),
        mlp_out="mlp.c_proj",
        embeddings="transformer.wte",
        final_norm="transformer.ln_f",
        lm_head="lm_head",
        transposed=True,
    ),
    "llama": Anatomy(
        layer="model.layers.{layer}",
        attention="self_attn",
        mlp_in=("mlp.gate_proj", "mlp.up_proj"),
        mlp_out="mlp.down_proj",
        embeddings="model.embed_tokens",
        final_norm="model.norm",
        lm_head="lm_head",
    ),
}


def anatomy_of(config: PreTrainedConfig) -> Anatomy:
    """The anatomy of a model with this config.

    Raises:
        UnknownArchitecture: The table has no entry for its `model_type`.
    """
    if config.model_type not in ANATOMIES:
        raise UnknownArchitecture(
            f"Weight editing does not know the architecture {config.model_type!r}; it knows {', '.join(ANATOMIES)}.",
            hint="Add its module paths to ANATOMIES in editors/model/anatomy.py; answering from memory works without.",
        )
    return ANATOMIES[config.model_type]
