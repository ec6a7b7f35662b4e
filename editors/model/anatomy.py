"""Where the parts of each architecture are: one table, keyed on the config's `model_type`, never on a model's name.

Weight editors need it. Answering from memory does not, so a model that is missing here can still be served.
Not covered: mixtures of experts, and OPT-350m, which has no norm before its head.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
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
        fused: Whether gate and up projection are the two halves of one matrix (Phi-3's gate_up_proj).
    """

    layer: str
    attention: str
    mlp_in: tuple[str, ...]
    mlp_out: str
    embeddings: str
    final_norm: str
    lm_head: str
    transposed: bool = False
    fused: bool = False

    def within(self, layer: int, part: str) -> str:
        """The path of a part, such as `mlp_out`, of the layer at an index that counts from 0."""
        return f"{self.layer.format(layer=layer)}.{part}"

    def is_transposed(self, weight: str) -> bool:
        """Whether the linear weight of that name is stored [in, out]; embeddings and head never are."""
        return self.transposed and weight.startswith(self.layer.partition("{")[0])

    def oriented(self, weight: str, tensor: Tensor) -> Tensor:
        """A linear weight turned from its storage to [out, in], or from [out, in] to its storage; memory is shared."""
        return tensor.T if self.is_transposed(weight) else tensor


_LLAMA = Anatomy(
    layer="model.layers.{layer}",
    attention="self_attn",
    mlp_in=("mlp.gate_proj", "mlp.up_proj"),
    mlp_out="mlp.down_proj",
    embeddings="model.embed_tokens",
    final_norm="model.norm",
    lm_head="lm_head",
)

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
    "gptj": Anatomy(
        layer="transformer.h.{layer}",
        attention="attn",
        mlp_in=("mlp.fc_in",),
        mlp_out="mlp.fc_out",
        embeddings="transformer.wte",
        final_norm="transformer.ln_f",
        lm_head="lm_head",
    ),
    "gpt_neox": Anatomy(
        layer="gpt_neox.layers.{layer}",
        attention="attention",
        mlp_in=("mlp.dense_h_to_4h",),
        mlp_out="mlp.dense_4h_to_h",
        embeddings="gpt_neox.embed_in",
        final_norm="gpt_neox.final_layer_norm",
        lm_head="lm_head",
    ),
    "opt": Anatomy(
        layer="model.decoder.layers.{layer}",
        attention="self_attn",
        mlp_in=("fc1",),
        mlp_out="fc2",
        embeddings="model.decoder.embed_tokens",
        final_norm="model.decoder.final_layer_norm",
        lm_head="lm_head",
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _LLAMA,
    "phi3": Anatomy(
        layer="model.layers.{layer}",
        attention="self_attn",
        mlp_in=("mlp.gate_up_proj",),
        mlp_out="mlp.down_proj",
        embeddings="model.embed_tokens",
        final_norm="model.norm",
        lm_head="lm_head",
        fused=True,
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
