"""Tiny random models on disk, as a user's folder would hold them, the real sentence encoder, and runtimes on both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig, PreTrainedTokenizerFast

import demo
from editors.model.loading import BaseModel, load_base
from editors.serac.encoder import SentenceEncoder
from editors.serac.scope import SimilarityScope
from service.runtime.live_memory import LiveMemory
from service.runtime.runtime import ModelRuntime
from service.store.store import PostgresStore
from tests.runtimes import StartRuntime

VOCABULARY = 300
CONFIGS = {
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, vocab_size=VOCABULARY),
    "llama": LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        vocab_size=VOCABULARY,
    ),
    "opt": OPTConfig(
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        vocab_size=VOCABULARY,
    ),
}


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint folder for each architecture, by model_type."""
    tokenizer = _tokenizer()
    folders = {}
    for model_type, config in CONFIGS.items():
        folders[model_type] = tmp_path_factory.mktemp("models") / f"tiny-{model_type}"
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folders[model_type])
        tokenizer.save_pretrained(folders[model_type])
    return folders


@pytest.fixture(scope="session")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


@pytest.fixture(scope="session")
def tiny_base(model_folders: dict[str, Path]) -> BaseModel:
    """A loaded tiny Llama."""
    return load_base(model_folders["llama"], device="cpu")


@pytest.fixture
async def start_runtime(
    tiny_base: BaseModel, encoder: SentenceEncoder, anyio_backend: str
) -> AsyncIterator[StartRuntime]:
    """Starts runtimes on a store, as one process after another would."""
    runtimes: list[ModelRuntime] = []

    async def start(store: PostgresStore, *, catch_up_seconds: float = 60) -> ModelRuntime:
        memory = LiveMemory(encoder, SimilarityScope.load(demo.SCOPE_CLASSIFIER), candidates=8, threshold=None)
        runtime = ModelRuntime(tiny_base, memory, store, catch_up_seconds=catch_up_seconds)
        runtimes.append(runtime)
        await runtime.start()
        return runtime

    yield start
    for runtime in runtimes:
        runtime.close()


def _tokenizer() -> PreTrainedTokenizerFast:
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
