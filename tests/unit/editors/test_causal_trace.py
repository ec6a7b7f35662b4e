from __future__ import annotations

import json
import math
from itertools import product

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from editors.errors import InvalidDataset
from editors.evaluation.cases import Case, InScope
from editors.model.anatomy import ANATOMIES
from editors.model.loading import load_base, tensor_hash
from editors.surgery.batch import Batch
from editors.surgery.causal_trace import (
    END,
    FIRST,
    FURTHER,
    HIDDEN,
    LAST,
    POSITIONS,
    STATES,
    TraceConfig,
    trace_facts,
)
from editors.surgery.tokens import target_ids
from service.cli import app
from tests.tiny_models import save_lively

NAMES = ("Paris", "Rome", "Lyon", "Hull", "Spain")
ENDS = ("lies in", "is", "was built by", "has", "and then", "of the", "to", "which", "for a", "as", "on", "it")
CONFIG = TraceConfig(samples=3, window=1)


@pytest.fixture(scope="module", params=ANATOMIES)
def base(request, tmp_path_factory):
    loaded = load_base(save_lively(request.param, tmp_path_factory.mktemp("lively") / request.param), device="cpu")
    bias = loaded.model.get_submodule(loaded.anatomy.lm_head).bias
    if bias is not None:  # GPT-J's; without it this one says by chance what begins no word
        with torch.no_grad():
            bias[target_ids(loaded.tokenizer, "It lies in", "Rome")[0]] += 2.0
    return loaded


def known(base):
    """What this model says, whatever it is, is what it knows, where that can be written and read again."""
    cases = []
    for name, end in product(NAMES, ENDS):
        prompt = f"Tell me, the old town of {name} {end}"
        batch = Batch.of(base, [base.tokenizer(prompt)["input_ids"]])
        token = int(batch.log_probabilities(base.model, batch.place([int(batch.mask.sum()) - 1])).argmax())
        answer = base.tokenizer.decode([token]).strip() or "Rome"
        if target_ids(base.tokenizer, prompt, answer)[0] == token:
            cases.append(Case(id=prompt, in_scope=(InScope(prompt, answer),), subject=f"the old town of {name}"))
    assert cases
    return cases[:3]


def test_the_last_layers_state_at_the_last_token_gives_the_whole_answer_back(base):
    found = trace_facts(base, known(base), CONFIG, progress=False)
    last = int(base.model.config.num_hidden_layers) - 1
    assert found.facts >= 1
    assert found.effects[HIDDEN][END][last] == pytest.approx(found.clean - found.corrupted, abs=1e-4)
    assert found.effects[HIDDEN][LAST][last] == pytest.approx(0, abs=1e-4)  # nothing reads it any more


def test_noise_that_is_next_to_nothing_has_next_to_no_effect(base):
    found = trace_facts(base, known(base), TraceConfig(noise=1e-6, samples=2), progress=False)
    assert found.corrupted == pytest.approx(found.clean, abs=1e-3)
    effects = [value for own in found.effects.values() for values in own.values() for value in values]
    assert all(math.isnan(value) or abs(value) < 1e-3 for value in effects)


def test_tracing_leaves_the_base_as_it_was_and_finds_the_same_again(base):
    before = tensor_hash(base.model)
    first, again = (trace_facts(base, known(base), CONFIG, limit=1, progress=False) for _ in range(2))
    assert first.effects[HIDDEN][FIRST] == again.effects[HIDDEN][FIRST]
    assert tensor_hash(base.model) == before
    assert not [hook for module in base.model.modules() for hook in module._forward_hooks]


def test_a_model_that_knows_none_of_the_facts_is_said_to(base):
    told = known(base)[0].in_scope[0]
    wrong = "Rome" if told.target != "Rome" else "Paris"
    case = Case(id="1", in_scope=(InScope(told.prompt, wrong),), subject=known(base)[0].subject)
    with pytest.raises(InvalidDataset, match="knows none of the 1 facts"):
        trace_facts(base, [case], CONFIG, progress=False)


@pytest.mark.parametrize("setting", [{"noise": 0.0}, {"samples": 0}, {"window": 0}])
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        TraceConfig(**setting)


def test_the_command_writes_effects_and_a_plot_and_names_a_layer(tmp_path):
    folder = save_lively("llama", tmp_path / "llama")
    cases = tmp_path / "facts.jsonl"
    lines = [
        {"id": case.id, "in_scope": [{"prompt": p.prompt, "target": p.target} for p in case.in_scope]}
        | {"subject": case.subject}
        for case in known(load_base(folder, device="cpu"))
    ]
    cases.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    output = tmp_path / "trace.json"
    arguments = ["trace", str(cases), "--base", str(folder), "--samples", "2", "--output", str(output)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(output.read_text(encoding="utf-8"))
    assert set(told["effects"]) == set(STATES) and set(told["effects"][HIDDEN]) == set(POSITIONS)
    assert told["layer"] in {0, 1} and f"Layer {told['layer']}" in done.output
    assert len(told["effects"][HIDDEN][FURTHER]) == 2
    with Image.open(output.with_suffix(".png")) as plot:
        assert plot.width > plot.height > 100


def test_the_command_wants_facts_for_a_model_of_ones_own(tmp_path):
    done = CliRunner().invoke(app, ["trace", "--base", str(tmp_path)])
    assert done.exit_code == 2 and "data set" in done.output
