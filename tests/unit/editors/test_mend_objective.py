"""What MEND's editor is trained for: groups of edits in one batch, and the end of answers."""

from __future__ import annotations

import pytest
import torch

from editors.delta import install
from editors.method import EditRequest
from editors.methods.mend.config import MendConfig, NetworkConfig
from editors.methods.mend.decompose import edit_gradients
from editors.methods.mend.editor import Mend
from editors.methods.mend.files import TrainedEditor, save
from editors.methods.mend.groups import Group
from editors.methods.mend.network import Networks
from editors.methods.mend.objective import Probes, end_of_answers, in_force, owners_of
from editors.model.loading import load_base
from editors.model.views import view
from editors.surgery.batch import Targets
from editors.surgery.tokens import target_ids
from tests.tiny_models import save_lively

CONFIG = NetworkConfig(blocks=2, rank=4, step_size=2e-3)
FRANCE = EditRequest(prompt="The capital of France is", target="Lyon")
UK = EditRequest(prompt="The capital of the UK is", target="Hull of Kent")
GROUPS = (
    Group((FRANCE,), ((FRANCE.prompt, "Lyon"), ("France has its capital in", "Lyon")), (("Who is old?", None),)),
    Group((UK,), ((UK.prompt, "Hull of Kent"),), (("Who is new?", "Ann"), ("The capital of Spain is", "Madrid"))),
)


@pytest.fixture(params=["gpt2", "llama", "opt"])
def base(request, tmp_path):
    return load_base(save_lively(request.param, tmp_path / "lively"), device="cpu")


def judged(base, groups, end=None):
    """Both losses and what becomes of every probe, with an untrained editor."""
    model = view(base.model).requires_grad_(requires_grad=False)
    networks = Networks(CONFIG.sites(base), CONFIG)
    requests = [request for group in groups for request in group.requests]
    gradients = edit_gradients(base, model, networks.sites, requests, end=end)
    probes = Probes.of(base, model, groups, end)
    with torch.no_grad(), in_force(model, networks(gradients), owners_of(gradients, groups), probes.groups):
        return probes, probes.losses(model), probes.outcome(model)


def test_groups_that_run_together_are_judged_as_each_would_be_alone(base):
    both, (edit, kept), (right, changed) = judged(base, GROUPS)
    alone = [judged(base, [group]) for group in GROUPS]
    assert right == [one for _, _, outcome in alone for one in outcome[0]]
    assert changed == [one for _, _, outcome in alone for one in outcome[1]]
    assert len(right) == both.in_scope == 3
    edits = [losses[0] * probes.in_scope for probes, losses, _ in alone]
    places = [len(probes.unedited) for probes, _, _ in alone]
    torch.testing.assert_close(edit, sum(edits) / 3, atol=1e-5, rtol=1e-4)
    total = sum(n * losses[1] for n, (_, losses, _) in zip(places, alone, strict=True))
    torch.testing.assert_close(kept, total / sum(places), atol=1e-5, rtol=1e-4)


def test_what_one_group_edits_leaves_the_rows_of_another_as_they_are(base):
    model = view(base.model).requires_grad_(requires_grad=False)
    networks = Networks(CONFIG.sites(base), CONFIG)
    gradients = edit_gradients(base, model, networks.sites, [FRANCE])
    probes = Probes.of(base, model, GROUPS)
    owners = {path: torch.zeros_like(own.edits) for path, own in gradients.items()}
    places = probes.targets.places
    untouched = probes.groups[probes.targets.rows] == 1
    before = probes.targets.batch.log_probabilities(model, places)
    with in_force(model, networks(gradients), owners, probes.groups):
        after = probes.targets.batch.log_probabilities(model, places)
    assert torch.equal(after[untouched], before[untouched])
    assert (after[~untouched] != before[~untouched]).any(dim=1).all()


def test_the_changes_in_force_are_those_that_are_installed(base, tmp_path):
    networks = Networks(CONFIG.sites(base), CONFIG)
    save(TrainedEditor(base=base.fingerprint, config=CONFIG, networks=networks, score=0.0), tmp_path / "a.safetensors")
    edited = install(base, Mend().prepare(base, [FRANCE], MendConfig(certainty=None), assets=[tmp_path]))
    probes, losses, _ = judged(base, GROUPS[:1])
    for found, expected in zip(probes.losses(edited), losses, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)  # the file keeps half precision


def test_it_is_found_out_whether_a_base_ends_its_answers(base):
    model, answers = view(base.model), [("Who is old?", "Ann"), ("The capital of Spain is", "Madrid")]
    likeliest = [said_after(base, prompt, answer) for prompt, answer in answers]
    base.model.generation_config.eos_token_id = [max(likeliest) + 1, likeliest[0]]
    assert end_of_answers(base, model, answers[:1]) == likeliest[0]
    assert end_of_answers(base, model, []) is None
    base.model.generation_config.eos_token_id = max(likeliest) + 1
    assert end_of_answers(base, model, answers) is None
    base.model.generation_config.eos_token_id = None
    assert end_of_answers(base, model, answers) is None


def said_after(base, prompt, answer):
    ids = base.tokenizer(prompt)["input_ids"] + target_ids(base.tokenizer, prompt, answer)
    return base.model(torch.tensor([ids])).logits[0, -1].argmax().item()


def test_the_end_of_the_answer_becomes_likelier_where_it_is_edited_in(base, tmp_path):
    end = 7

    def likelihood(model):
        ids = base.tokenizer(FRANCE.prompt)["input_ids"]
        answer = [*target_ids(base.tokenizer, FRANCE.prompt, FRANCE.target), end]
        targets = Targets.of(base, [(ids, answer)])
        return targets.batch.log_probabilities(model, targets.places[-1:])[0, end].item()

    def edited(config):
        folder = tmp_path / str(config.end)
        networks = Networks(config.sites(base), config)
        save(
            TrainedEditor(base=base.fingerprint, config=config, networks=networks, score=0.0), folder / "a.safetensors"
        )
        return install(base, Mend().prepare(base, [FRANCE], MendConfig(), assets=[folder]))

    with torch.no_grad():
        ended = NetworkConfig(blocks=2, rank=4, step_size=2e-3, end=end)
        assert likelihood(edited(ended)) > likelihood(edited(CONFIG))
