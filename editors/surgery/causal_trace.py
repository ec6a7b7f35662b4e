"""Causal tracing: which states carry a fact (Meng et al. 2022, sec. 2).

A fact's prompt is run with noise on its subject's embeddings, which makes the model forget the answer; then again with
one state put back as it was without noise. How much likelier the answer becomes is the state's indirect effect. Putting
back what an MLP or an attention block writes takes a window of layers around one, as in the paper.

Where a fact is found is not always the best place to edit it (Hase et al. 2023): the layer named here is where to
begin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from editors.errors import InvalidDataset
from editors.evaluation.cases import Case
from editors.model.anatomy import Anatomy
from editors.model.loading import BaseModel
from editors.model.views import view
from editors.surgery.batch import Batch
from editors.surgery.tokens import Lookup, find_subject, locate, target_ids
from editors.surgery.trace import Capture, added, captured, replaced

HIDDEN, MLP, ATTENTION = "hidden state", "MLP", "attention"
STATES = (HIDDEN, MLP, ATTENTION)
FIRST, MIDDLE, LAST = "first subject token", "middle subject tokens", "last subject token"
AFTER, FURTHER, END = "first token after", "further tokens", "last token"
POSITIONS = (FIRST, MIDDLE, LAST, AFTER, FURTHER, END)
"""Where tokens stand, as in the paper's figure 2. A subject of one token is its own last; what comes before it counts
for nothing, since no noise reaches it."""

_WINDOW = 10 / 48
"""The paper's ten layers of GPT-2 XL's 48."""
_TOKENS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceConfig:
    """Settings; the defaults are the authors'.

    Attributes:
        noise: Standard deviation of the noise, in those of the subjects' embeddings.
        samples: Draws of noise for each fact.
        window: How many layers' MLPs, or attention blocks, are put back at once; None takes the paper's share of them.
        seed: Of the noise.
    """

    noise: float = 3.0
    samples: int = 10
    window: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.noise <= 0 or self.samples < 1 or (self.window is not None and self.window < 1):
            raise ValueError("noise, samples and window must be positive")

    def layers_around(self, layer: int, layers: int) -> range:
        """The window around a layer, cut at the model's ends."""
        size = max(1, round(_WINDOW * layers)) if self.window is None else self.window
        return range(max(0, layer - size // 2), min(layers, layer - size // 2 + size))


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFact:
    """A prompt that the model answers rightly.

    Attributes:
        lookup: Its tokens, and the subject among them.
        answer: The first token of the answer.
        probability: Of that token.
    """

    lookup: Lookup
    answer: int
    probability: float

    def position(self, token: int) -> str | None:
        """Where a token stands; None before the subject."""
        first, last, end = self.lookup.first, self.lookup.token, len(self.lookup.ids) - 1
        if token < first:
            return None
        named = {last + 1: AFTER, end: END, first: FIRST, last: LAST}  # the later name holds where two fall together
        return named.get(token, MIDDLE if token < last else FURTHER)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CausalTrace:
    """Averages over facts.

    Attributes:
        facts: How many.
        clean: Mean probability of the answer.
        corrupted: The same with noise.
        effects: Average indirect effect by state and position, for each layer: [layers]; nan where no fact has a token.
        window: Layers put back at once, of MLPs and attention blocks.
    """

    facts: int
    clean: float
    corrupted: float
    effects: Mapping[str, Mapping[str, list[float]]]
    window: int

    @property
    def layer(self) -> int:
        """Where MLPs have the greatest effect at the subject's last token: ROME's layer by the authors' rule."""
        effects = self.effects[MLP][LAST]
        return max(range(len(effects)), key=effects.__getitem__)

    def plain(self) -> dict[str, Any]:
        """As JSON has it, where what no fact has is null."""
        effects = {
            state: {place: [None if math.isnan(value) else value for value in values] for place, values in own.items()}
            for state, own in self.effects.items()
        }
        return asdict(self) | {"effects": effects, "layer": self.layer}


def trace_facts(
    base: BaseModel, cases: Sequence[Case], config: TraceConfig, *, limit: int | None = None, progress: bool = True
) -> CausalTrace:
    """Trace the facts among some cases that the model knows: whose answer begins with its likeliest token.

    Args:
        base: The model; only read, through a view.
        cases: Of a case with an edit, the previous answer to its prompt; of another, its first probe in scope.
        config: Settings.
        limit: At most so many facts.
        progress: Whether to show a bar.

    Raises:
        UnknownArchitecture: Weight editing does not know the model.
        ContextExceeded: A prompt is longer than the base's context.
        InvalidDataset: The model knows none of the facts, or no case has a fact with its subject in the prompt.
    """
    anatomy, model = base.anatomy, view(base.model)
    facts = known_facts(base, model, cases, limit)
    scale = config.noise * _deviation(model, anatomy, facts)
    generator = torch.Generator().manual_seed(config.seed)
    found: list[tuple[KnownFact, float, dict[str, Tensor]]] = []
    for fact in tqdm(facts, desc="facts", unit="fact", disable=not progress):
        tracer = _Tracer(base, model, fact, config, scale, generator)
        found.append((fact, tracer.corrupted(), {state: tracer.restored(state) for state in STATES}))
    return _averaged(base, found, config)


@torch.no_grad()
def known_facts(
    base: BaseModel, model: PreTrainedModel, cases: Sequence[Case], limit: int | None = None
) -> list[KnownFact]:
    """The facts among cases that the model knows, in order; raises as `trace_facts` does."""
    facts: list[KnownFact] = []
    for prompt, answer, subject in _told(cases):
        if limit is not None and len(facts) == limit:
            break
        lookup = locate(base.tokenizer, prompt, subject)
        batch = Batch.of(base, [lookup.ids])
        after = batch.log_probabilities(model, batch.place([len(lookup.ids) - 1]))[0].exp()
        first = target_ids(base.tokenizer, prompt, answer)[0]
        if int(after.argmax()) == first:
            facts.append(KnownFact(lookup=lookup, answer=first, probability=float(after[first])))
    if not facts:
        raise InvalidDataset(
            f"{base.name} knows none of the {len(cases)} facts.",
            hint="Give prompts that name their subject, with the answers that this model gives.",
        )
    return facts


def _told(cases: Sequence[Case]) -> Iterator[tuple[str, str, str]]:
    """Prompt, answer and subject of the cases that have all three, the subject within the prompt."""
    for case in cases:
        prompt = getattr(case.edit, "prompt", None)
        if prompt is not None and case.previous is not None:
            answer: str | None = case.previous
        elif case.edit is None and case.in_scope:
            prompt, answer = case.in_scope[0].prompt, case.in_scope[0].target
        else:
            continue
        subject = case.subject or find_subject(prompt)
        if subject in prompt and answer:
            yield prompt, answer, subject


@torch.no_grad()
def _deviation(model: PreTrainedModel, anatomy: Anatomy, facts: Sequence[KnownFact]) -> float:
    """Standard deviation of the numbers in the embeddings of the subjects' tokens."""
    ids = [fact.lookup.ids[fact.lookup.first : fact.lookup.token + 1] for fact in facts]
    tokens = torch.tensor([token for subject in ids for token in subject], device=model.device)
    embedded: Tensor = model.get_submodule(anatomy.embeddings)(tokens)
    return float(embedded.float().std())


class _Tracer:
    """One fact under several draws of noise: rows of the same prompt, which differ in their subject's embeddings."""

    def __init__(
        self,
        base: BaseModel,
        model: PreTrainedModel,
        fact: KnownFact,
        config: TraceConfig,
        scale: float,
        generator: torch.Generator,
    ) -> None:
        self._base, self._model, self._fact, self._config = base, model, fact, config
        self._layers = int(model.config.num_hidden_layers)
        subject = range(fact.lookup.first, fact.lookup.token + 1)
        width = base.model.get_parameter(f"{base.anatomy.embeddings}.weight").shape[1]
        self._subject = torch.tensor(subject)
        self._noise = scale * torch.randn(config.samples, len(subject), width, generator=generator)
        self._clean = self._states()

    @torch.no_grad()
    def _states(self) -> dict[str, list[Tensor]]:
        """What every layer, MLP and attention block writes without noise: by state and layer, [tokens, width]."""
        batch = Batch.of(self._base, [self._fact.lookup.ids])
        with ExitStack() as stack:
            seen: dict[str, list[Capture]] = {
                state: [stack.enter_context(captured(self._model, path)) for path in self._paths(state)]
                for state in STATES
            }
            batch.run(self._model)
        return {state: [capture.output for capture in captures] for state, captures in seen.items()}

    def corrupted(self) -> float:
        """Mean probability of the answer with noise."""
        return float(self._probabilities(STATES[0], (), [len(self._fact.lookup.ids) - 1])[0])

    def restored(self, state: str) -> Tensor:
        """Mean probability of the answer with noise and one state put back: [tokens, layers]."""
        tokens = range(len(self._fact.lookup.ids))
        at_once = max(1, _TOKENS_AT_ONCE // (len(tokens) * self._config.samples))
        columns = []
        for layer in range(self._layers):
            around = [layer] if state == HIDDEN else self._config.layers_around(layer, self._layers)
            parts = [tokens[first : first + at_once] for first in tokens[::at_once]]
            columns.append(torch.cat([self._probabilities(state, around, part) for part in parts]))
        return torch.stack(columns, dim=1)

    @torch.no_grad()
    def _probabilities(self, state: str, layers: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Mean probability of the answer with a state put back at one token, for each of these: [tokens]."""
        ids, samples = self._fact.lookup.ids, self._config.samples
        batch = Batch.of(self._base, [ids] * (len(tokens) * samples))
        starts = batch.place([0] * (len(tokens) * samples))
        noisy = (starts[:, None].cpu() + self._subject).flatten().to(starts.device)
        noise = self._noise.repeat(len(tokens), 1, 1).flatten(0, 1).to(starts.device)
        restored = torch.tensor(tokens, device=starts.device).repeat_interleave(samples)
        with ExitStack() as stack:
            stack.enter_context(added(self._model, self._base.anatomy.embeddings, noisy, noise))
            for layer in layers:
                clean = self._clean[state][layer][restored]
                stack.enter_context(replaced(self._model, self._paths(state)[layer], starts + restored, clean))
            after = batch.log_probabilities(self._model, starts + len(ids) - 1)
        return after[:, self._fact.answer].exp().view(len(tokens), samples).mean(dim=1).cpu()

    def _paths(self, state: str) -> list[str]:
        anatomy = self._base.anatomy
        if state == HIDDEN:
            return [anatomy.layer.format(layer=layer) for layer in range(self._layers)]
        part = anatomy.mlp_out if state == MLP else anatomy.attention
        return [anatomy.within(layer, part) for layer in range(self._layers)]


def _averaged(
    base: BaseModel, found: Sequence[tuple[KnownFact, float, dict[str, Tensor]]], config: TraceConfig
) -> CausalTrace:
    """Indirect effects by position, first over a fact's tokens and then over facts."""
    layers = int(base.model.config.num_hidden_layers)
    by_place: dict[tuple[str, str], list[Tensor]] = {(state, place): [] for state in STATES for place in POSITIONS}
    for fact, corrupted, restored in found:
        positions = [fact.position(token) for token in range(len(fact.lookup.ids))]
        for (state, place), effects in by_place.items():
            tokens = [token for token, position in enumerate(positions) if position == place]
            if tokens:
                effects.append((restored[state][tokens] - corrupted).mean(dim=0))
    nothing = [torch.full((layers,), torch.nan)]
    return CausalTrace(
        facts=len(found),
        clean=sum(fact.probability for fact, _, _ in found) / len(found),
        corrupted=sum(corrupted for _, corrupted, _ in found) / len(found),
        effects={
            state: {p: torch.stack(by_place[state, p] or nothing).mean(dim=0).tolist() for p in POSITIONS}
            for state in STATES
        },
        window=len(config.layers_around(layers // 2, layers)),
    )
