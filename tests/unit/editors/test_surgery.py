from __future__ import annotations

import pytest
import torch

from editors.errors import ContextExceeded
from editors.method import EditRequest
from editors.model.anatomy import ANATOMIES
from editors.model.loading import load_base
from editors.model.views import view
from editors.surgery.batch import Batch, Targets, targets_of
from editors.surgery.keys import keys_and_values
from editors.surgery.quick import Quick
from editors.surgery.sampling import sampled_texts
from editors.surgery.tokens import locate
from editors.surgery.trace import added, captured, narrowed, replaced, reweighted

SEQUENCES = [[5, 6, 7, 8, 9], [10, 11, 12]]


@pytest.fixture(params=ANATOMIES)
def base(model_folders, request):
    return load_base(model_folders[request.param], device="cpu")


@pytest.fixture
def llama(model_folders):
    return load_base(model_folders["llama"], device="cpu")


def mlp_out(base, layer=0):
    return base.anatomy.within(layer, base.anatomy.mlp_out)


@torch.inference_mode()
def logits(model, sequence):
    return model(input_ids=torch.tensor([sequence])).logits[0]


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@torch.inference_mode()
def test_a_capture_holds_what_the_module_read_and_wrote_at_each_place(base):
    batch, model = Batch.of(base, SEQUENCES), view(base.model)
    with captured(model, mlp_out(base), batch.place([3, 1])) as seen:
        batch.run(model)
    for row, token in enumerate((3, 1)):
        with captured(model, mlp_out(base)) as alone:
            model(input_ids=torch.tensor([SEQUENCES[row]]))
        torch.testing.assert_close(seen.input[row], alone.input[token], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(seen.output[row], alone.output[token], atol=1e-5, rtol=1e-5)
    weight = base.anatomy.oriented(f"{mlp_out(base)}.weight", model.get_parameter(f"{mlp_out(base)}.weight"))
    bias = getattr(model.get_submodule(mlp_out(base)), "bias", None)
    torch.testing.assert_close(seen.output, seen.input @ weight.T + (0 if bias is None else bias))


@torch.inference_mode()
def test_adding_reaches_its_place_in_its_row_and_what_comes_after(base):
    batch, model = Batch.of(base, SEQUENCES), view(base.model)
    everywhere = batch.occupied  # five places of the first row, three of the second
    before = batch.log_probabilities(model, everywhere)
    value = torch.randn(base.model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    with added(model, mlp_out(base), batch.place([2, 0])[:1], value):
        after = batch.log_probabilities(model, everywhere)
    changed = [not torch.equal(was, now) for was, now in zip(before, after, strict=True)]
    assert changed == [False, False, True, True, True, False, False, False]


@torch.inference_mode()
def test_replacing_by_what_adding_gives_is_the_same(base):
    batch, model = Batch.of(base, SEQUENCES), view(base.model)
    at = batch.place([2, 1])
    value = torch.randn(2, base.model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    with captured(model, mlp_out(base), at) as seen:
        batch.run(model)
    with added(model, mlp_out(base), at, value):
        expected = batch.log_probabilities(model, batch.occupied)
    with replaced(model, mlp_out(base), at, seen.output + value):
        assert torch.equal(batch.log_probabilities(model, batch.occupied), expected)


@torch.inference_mode()
def test_a_whole_layer_can_be_replaced_by_what_it_was_in_another_run(base):
    batch, model = Batch.of(base, SEQUENCES), view(base.model)
    layer, everywhere = base.anatomy.layer.format(layer=1), torch.arange(batch.ids.numel())
    clean = batch.log_probabilities(model, batch.occupied)
    with captured(model, layer) as seen:
        batch.run(model)
    with added(model, base.anatomy.embeddings, everywhere, torch.arange(32.0)):
        assert not torch.allclose(batch.log_probabilities(model, batch.occupied), clean)
        with replaced(model, layer, everywhere, seen.output):
            torch.testing.assert_close(batch.log_probabilities(model, batch.occupied), clean)


@torch.inference_mode()
def test_reweighting_computes_as_if_the_weight_were_changed(base):
    batch, site = Batch.of(base, SEQUENCES), f"{mlp_out(base)}.weight"
    model, edited = view(base.model), view(base.model, [site])
    weight = base.anatomy.oriented(site, edited.get_parameter(site))
    change = 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    weight += change
    with reweighted(model, mlp_out(base), change):
        ours = batch.log_probabilities(model, batch.occupied)
    torch.testing.assert_close(ours, batch.log_probabilities(edited, batch.occupied), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_log_probabilities_of_a_padded_batch_are_those_of_each_sequence_alone(base):
    batch = Batch.of(base, SEQUENCES)
    ours = batch.log_probabilities(view(base.model), batch.occupied)
    alone = torch.cat([logits(base.model, sequence).log_softmax(dim=-1) for sequence in SEQUENCES])
    torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)


def test_hooks_are_gone_after_the_block_also_when_it_raises(llama):
    model, at, value = view(llama.model), torch.tensor([0]), torch.zeros(32)
    path = mlp_out(llama)
    for block in (
        captured(model, path),
        added(model, path, at, value),
        replaced(model, path, at, value),
        reweighted(model, path, torch.zeros(32, 48)),
        narrowed(model, path, at),
    ):
        assert hooks(model) == 0  # none before it is entered
        with pytest.raises(ZeroDivisionError), block:
            assert hooks(model) == 1
            raise ZeroDivisionError
        assert hooks(model) == 0


def test_a_capture_without_a_run_says_so(llama):
    with captured(view(llama.model), mlp_out(llama)) as seen, pytest.raises(RuntimeError, match="has not run"):
        _ = seen.input


def test_keys_are_read_at_the_subject_and_do_not_depend_on_what_follows(base):
    prompts = ("The capital of France is", "France")
    lookups = [locate(base.tokenizer, "The capital of France" + rest, "France") for rest in ("", " is", ", or so")]
    keys, values = keys_and_values(base, view(base.model), mlp_out(base), lookups)
    assert keys.dtype == values.dtype == torch.float32
    torch.testing.assert_close(keys, keys[:1].expand_as(keys), atol=1e-5, rtol=1e-5)
    other, _ = keys_and_values(base, view(base.model), mlp_out(base), [locate(base.tokenizer, prompts[1], "France")])
    assert not torch.allclose(other, keys[:1])


def test_mean_log_probabilities_are_of_each_rows_own_target(llama):
    targets = Targets.of(llama, [([5, 6], [7, 8]), ([5], [9])])
    model = view(llama.model)
    with torch.no_grad():
        ours = targets.mean_log_probabilities(targets.batch.log_probabilities(model, targets.places))
    long, short = logits(model, [5, 6, 7, 8]).log_softmax(-1), logits(model, [5, 9]).log_softmax(-1)
    torch.testing.assert_close(ours, torch.stack([(long[1, 7] + long[2, 8]) / 2, short[0, 9]]), atol=1e-5, rtol=1e-5)


def test_a_requests_paraphrases_come_with_its_target(llama):
    request = EditRequest(prompt="Paris is", target="big", paraphrases=("Paris was", "Oh, Paris is"))
    targets = targets_of(llama, [request])
    assert len(targets.batch.ids) == 3
    assert llama.tokenizer.decode(targets.ids) == " big big big"


def test_a_sequence_beyond_the_context_is_refused(llama):
    with pytest.raises(ContextExceeded, match="257 tokens"):
        Batch.of(llama, [[5], [5] * 257])


def test_sampled_texts_come_from_their_seed_alone(base):
    first = sampled_texts(base, ((3, 4), (6, 2)), seed=1, quick=Quick(base))
    state = torch.get_rng_state()
    assert sampled_texts(base, ((3, 4), (6, 2)), seed=1, quick=Quick(base)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first) == 6
    assert sampled_texts(base, ((3, 4), (6, 2)), seed=2, quick=Quick(base)) != first
    assert not any(special in text for text in first for special in base.tokenizer.all_special_tokens)


def test_a_sampled_text_is_the_same_whether_others_are_written_with_it_or_not(base):
    together = sampled_texts(base, ((3, 4), (6, 2), (2, 3)), seed=1, quick=Quick(base))
    assert sampled_texts(base, ((3, 4),), seed=1, quick=Quick(base)) == together[:4]
    assert sampled_texts(base, ((3, 4), (6, 2)), seed=1, quick=Quick(base)) == together[:6]
