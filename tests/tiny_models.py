"""Tiny random models, one for each architecture of the anatomy table, and one that it lacks."""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

VOCABULARY = 300
UNKNOWN = "bloom"
"""A causal language model that the anatomy table lacks."""

_COMMON = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": VOCABULARY,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_GROUPED = _COMMON | {"num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64}

CONFIGS: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, vocab_size=VOCABULARY),
    "gptj": GPTJConfig(n_embd=32, n_layer=2, n_head=2, rotary_dim=8, n_positions=64, vocab_size=VOCABULARY),
    "gpt_neox": GPTNeoXConfig(**_COMMON, max_position_embeddings=64),
    "opt": OPTConfig(
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        vocab_size=VOCABULARY,
    ),
    "llama": LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        vocab_size=VOCABULARY,
    ),
    "mistral": MistralConfig(**_GROUPED),
    "qwen2": Qwen2Config(**_COMMON, num_key_value_heads=1, max_position_embeddings=64),
    "qwen3": Qwen3Config(**_GROUPED),
    "gemma2": Gemma2Config(**_GROUPED, query_pre_attn_scalar=16),
    "phi3": Phi3Config(**_COMMON, max_position_embeddings=64, original_max_position_embeddings=64),
    UNKNOWN: BloomConfig(hidden_size=32, n_layer=2, n_head=2, vocab_size=VOCABULARY),
}


def save_lively(model_type: str, folder: Path) -> Path:
    """Write a checkpoint whose parts write as much as a trained model's do, and give its folder back.

    At the usual initial size, what an MLP writes hardly reaches the logits, and there is little to edit.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIGS[model_type])
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_corpus() -> list[str]:
    """Texts enough for a tiny model's key statistics: words in any order."""
    words = (
        "the",
        "of",
        "France",
        "UK",
        "capital",
        "minister",
        "prime",
        "is",
        "Who",
        "Paris",
        "in",
        "rains",
        "sky",
        "green",
        "old",
        "new",
        "it",
        "and",
        "Lyon",
        "was",
    )
    return [" ".join(Random(n).choices(words, k=10)) for n in range(80)]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that can read anything."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["Who is the prime minister of the UK?", "The capital of France is Paris."], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
