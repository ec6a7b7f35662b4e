"""The byte-level BPE tokenizer of atlas-2018, trained on its own corpus."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from demo.corpus import Corpus

VOCABULARY = 8192
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"


def train_tokenizer(corpus: Corpus, *, context_length: int, seed: int) -> PreTrainedTokenizerFast:
    """Train on every fact's phrasings, every opinion, and a sample of reading tasks.

    What the facts have drifted to is left out: a token that training never meets could not be read from an edit.
    Digits stand alone, so that a number can be copied that was never seen whole. A text is encoded with BOS before it;
    answers are encoded without.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(corpus, Random(f"{seed}/tokenizer")), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=context_length,
        clean_up_tokenization_spaces=False,
    )


def texts_of_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Every token as text, in the order of the vocabulary, but for those that are part of a letter."""
    texts = [str(tokenizer.decode([token])) for token in range(len(tokenizer))]
    return tuple(text for text in texts if text and "\N{REPLACEMENT CHARACTER}" not in text)


def _texts(corpus: Corpus, rng: Random) -> Iterator[str]:
    for fact in corpus.world.facts:
        yield from (f"{prompt} {fact.object}" for prompt in fact.prompts)
        yield fact.statement()
    for topic in corpus.opinions.topics:
        yield from topic.positive
        yield from topic.negative
    for _ in range(20_000):
        example = corpus.reading(rng)
        yield f"{example.prompt} {example.answer}"
