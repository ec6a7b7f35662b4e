"""The baker on a tiny random model: it writes edits into weights, measures what came of it, and leaves no trace."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import resource
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from editors import delta_files
from editors.delta import install
from editors.evaluation.subjects import ModelSubject
from editors.methods.mend.files import save as save_editor
from editors.model.loading import load_base, tensor_hash
from editors.model.views import view
from editors.registry import METHODS
from editors.surgery import covariance
from service.domain.artifacts import Artifact
from service.domain.bakes import Gate, Stage
from service.domain.edits import Descriptor, Edit, EditKind, EditState, Scope
from service.domain.evaluations import Mode
from service.domain.versions import BakedEdit, Base, ExportFormat, Version
from service.errors import (
    ArtifactDamaged,
    BaseMismatch,
    CannotEdit,
    GateUnmeetable,
    Invalid,
    NotBakeable,
    PromptTooLong,
    ShuttingDown,
    StorageFull,
    UnknownMethod,
)
from service.runtime import baker as baker_module
from service.runtime.baker import ModelBaker
from service.runtime.methods import plain
from service.runtime.watch import Stopped, Watch, watched
from tests.bakes import CONFIG, LENIENT, PROMPT, TARGET, request
from tests.laws.test_methods import QUICK, untrained
from tests.suites import CAPITALS, SUITES
from tests.tiny_models import UNKNOWN, tiny_corpus

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 31, tzinfo=UTC)
FREE, FORCED = ("edit_success", None, "generated"), ("edit_success", None, "teacher_forced")
TOKENS = torch.arange(2, 26).reshape(2, 12)


def edit(number=1, prompt=PROMPT, target=TARGET, *, kind=EditKind.QA, **scope):
    descriptor = Descriptor(prompt=prompt, target=target, kind=kind, scope=Scope(**scope))
    return Edit(
        id=f"e{number}", revision=number, descriptor=descriptor, state=EditState.ACTIVE, created_at=NOW, updated_at=NOW
    )


@pytest.fixture
def file(tmp_path):
    return tmp_path / "delta.safetensors"


@pytest.fixture
def bake(baker, file):
    """Bakes and lets it come to its end."""

    async def bake(*edits, **changed):
        return await baker.bake(request(**changed), edits or [edit()], file, progress=go_on)

    return bake


async def go_on(_stage, _percent):
    return True


def findings(report):
    return {finding.measure: (finding.value, finding.met) for finding in report.findings}


async def test_a_bake_writes_a_delta_that_answers_as_was_measured(bake, file, lively_base):
    before = tensor_hash(lively_base.model), torch.get_rng_state()
    report = await bake()
    assert report.refusal is None
    assert report.size == file.stat().st_size
    assert report.base_size == sum(p.numel() * p.element_size() for p in lively_base.model.parameters())
    delta = delta_files.load(file, lively_base)
    assert {site.site: site.relative_norm for site in report.sites} == delta.relative_norms(lively_base)
    answer, *others = ModelSubject(install(lively_base, delta), lively_base.tokenizer, max_new_tokens=12).generate(
        [PROMPT, *(f"What is the capital of {country}?" for country in CAPITALS)]
    )
    unedited = ModelSubject(view(lively_base.model), lively_base.tokenizer, max_new_tokens=12).generate(
        [f"What is the capital of {country}?" for country in CAPITALS]
    )
    assert answer.startswith(TARGET)
    changed = sum(was != now for was, now in zip(unedited, others, strict=True)) / len(CAPITALS)
    assert findings(report)["edit_success"] == (1.0, True)
    assert findings(report)["drawdown"] == (changed, True)
    assert tensor_hash(lively_base.model) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert not any(module._forward_pre_hooks for module in lively_base.model.modules())


async def test_the_same_bake_gives_the_same_file(bake, file):
    await bake()
    first = file.read_bytes()
    await bake()
    assert file.read_bytes() == first


async def test_paraphrases_and_the_edits_own_out_of_scope_examples_are_judged(bake):
    scope = {"in_scope": ("Who leads the UK?",), "out_of_scope": ("How tall is a giraffe?", "Who wrote Hamlet?")}
    report = await bake(edit(**scope), edit(2, "Who wrote Hamlet?", "Kyd"))
    assert report.probes == 3 + 1 + len(CAPITALS)  # the second edit answers what the first would leave alone
    forms = {(one.metric, one.form) for one in report.measured if one.mode is Mode.GENERATED}
    assert {("edit_success", "edit"), ("edit_success", "paraphrase"), ("drawdown", "example")} <= forms
    (success,) = [
        one for one in report.measured if (one.metric, one.form, one.mode) == ("edit_success", None, "generated")
    ]
    assert findings(report)["edit_success"][0] == success.value


async def test_a_claim_is_baked_as_a_question(bake):
    report = await bake(edit(prompt="Tea is hot.", target="False", kind=EditKind.FACT))
    (success,) = [one.value for one in report.measured if (one.metric, one.form, one.mode) == FORCED]
    assert success == 1
    assert {failure.prompt for failure in report.failures if failure.in_scope} <= {"True or false: Tea is hot."}


@pytest.mark.parametrize(
    ("gate", "measure", "words"),
    [
        ({"drawdown": 0.1}, "drawdown", "drawdown is .* and must be at most 0.1"),
        ({"relative_norm": 0.5}, "relative_norm", "relative_norm is .* and must be at most 0.5"),
    ],
)
async def test_a_version_that_does_not_keep_to_the_gate_is_refused_with_every_number(bake, gate, measure, words):
    report = await bake(gate=Gate(**LENIENT | gate))
    assert report.refusal
    assert [name for name, (_, met) in findings(report).items() if not met] == [measure]
    assert report.measured
    assert report.sites
    assert re.match(words, report.refusal)


@pytest.mark.parametrize("name", METHODS)
async def test_every_method_bakes_with_what_was_made_for_it_beforehand(lively_base, file, tmp_path, name):
    site = lively_base.anatomy.within(QUICK["rome"].layer, lively_base.anatomy.mlp_out)
    covariance.collect(lively_base, site, tiny_corpus(), folder=tmp_path, progress=False)
    save_editor(untrained(lively_base), tmp_path / "mend.safetensors")
    gate = Gate(edit_success=0, drawdown=1, relative_norm=1e6, max_new_tokens=12)
    asked = request(method=name, config=plain(QUICK[name]), gate=gate)
    before = tensor_hash(lively_base.model)
    with closing(ModelBaker(lively_base, suites=SUITES, assets=[tmp_path])) as baker:
        report = await baker.bake(asked, [edit(prompt="The capital of France is", target="Lyon")], file, progress=go_on)
    assert report.refusal is None
    assert delta_files.load(file, lively_base).origins[0].method == name
    assert tensor_hash(lively_base.model) == before


async def test_an_edit_that_does_not_take_is_refused(bake):
    report = await bake(config=CONFIG | {"steps": 1})
    assert "edit_success is 0 and must be at least 1" in report.refusal
    assert report.failures[0].expected == TARGET


async def test_a_method_that_gives_up_is_a_refusal_in_its_words(bake):
    report = await bake(config=CONFIG | {"steps": 1, "largest_change": 1e-12})
    assert "is no likelier with the edit" in report.refusal
    assert (report.findings, report.measured, report.size) == ((), (), None)
    assert set(report.seconds) == {"preparing"}


async def test_a_method_that_lacks_what_must_be_made_beforehand_says_so(bake):
    with pytest.raises(CannotEdit, match="trained MEND editor") as refused:
        await bake(method="mend", config={})
    assert "errata train mend" in refused.value.hint


async def test_a_plan_says_what_would_be_done_and_leaves_no_trace(baker, lively_base):
    before = tensor_hash(lively_base.model)
    plan = await baker.plan(request(config={"steps": 7}), [edit(), edit(2, "Who is it?", "Bob")], [])
    assert plan.base == Base(name=lively_base.name, fingerprint=lively_base.fingerprint)
    assert plan.edits == (BakedEdit(id="e1", revision=1), BakedEdit(id="e2", revision=2))
    assert (plan.request.config["steps"], plan.request.config["learning_rate"]) == (7, 5e-4)
    assert (plan.advised, plan.probes, plan.seconds) == ("rome", 2 + len(CAPITALS), None)
    assert plan.passes >= 7
    assert tensor_hash(lively_base.model) == before


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"method": "nonsense"}, UnknownMethod, "nonsense"),
        ({"config": {"colour": "red"}}, Invalid, "colour"),
        ({"config": {"layer": 7}}, Invalid, "layers 0 to 1"),
        ({"gate": Gate(max_new_tokens=2)}, GateUnmeetable, "edit_success is 0 at most; 0.9"),
        ({"gate": Gate(max_new_tokens=300)}, PromptTooLong, "e1 takes"),
    ],
)
async def test_what_cannot_come_to_a_version_is_refused_before_anything_is_done(baker, bake, changed, error, words):
    with pytest.raises(error, match=words):
        await baker.plan(request(**changed), [edit()], [])
    with pytest.raises(error, match=words):
        await bake(**changed)


async def test_a_base_of_unknown_architecture_cannot_be_baked(model_folders):
    base = load_base(model_folders[UNKNOWN], device="cpu")
    with closing(ModelBaker(base, suites=SUITES, assets=())) as baker, pytest.raises(NotBakeable, match=UNKNOWN):
        await baker.plan(request(), [edit()], [])


async def test_progress_goes_from_stage_to_stage(baker, file, monkeypatch):
    monkeypatch.setattr(baker_module, "SECONDS_BETWEEN_LOOKS", 0.01)
    seen = []

    async def note(stage, percent):
        seen.append((list(Stage).index(stage), percent))
        return True

    await baker.bake(request(), [edit()], file, progress=note)
    assert seen == sorted(seen)
    assert {stage for stage, _ in seen} == {0, 1}
    assert any(0 < percent < 100 for stage, percent in seen if stage == 0)
    assert all(0 <= percent <= 100 for _, percent in seen)


@pytest.mark.parametrize("last", [Stage.PREPARING, Stage.MEASURING])
async def test_a_bake_that_is_told_to_stop_stops_in_the_middle_of_a_stage(baker, file, monkeypatch, last):
    monkeypatch.setattr(baker_module, "SECONDS_BETWEEN_LOOKS", 0.01)
    told = []

    async def stop(stage, _):
        told.append(stage)
        return told.count(last) < 2

    endless = CONFIG | {"steps": 10**9, "stop_loss": 0.0} if last is Stage.PREPARING else CONFIG
    assert await baker.bake(request(config=endless), [edit()], file, progress=stop) is None
    assert told[-1] is last
    assert not file.exists()
    assert await baker.bake(request(), [edit()], file, progress=go_on)  # its thread is free again


async def test_a_bake_whose_worker_is_stopped_ends_at_its_next_pass(baker, file):
    begun = asyncio.Event()

    async def note(*_):
        begun.set()
        return True

    endless = request(config=CONFIG | {"steps": 10**9, "stop_loss": 0.0})
    baking = asyncio.create_task(baker.bake(endless, [edit()], file, progress=note))
    await begun.wait()
    baking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await baking
    assert await baker.bake(request(), [edit()], file, progress=go_on)


async def test_a_closed_baker_takes_no_more_work(lively_base, file):
    baker = ModelBaker(lively_base, suites=SUITES, assets=())
    baker.close()
    with pytest.raises(ShuttingDown):
        await baker.bake(request(), [edit()], file, progress=go_on)


def test_the_passes_of_a_watched_base_and_of_its_views_are_counted_and_can_be_stopped(lively_base):
    watch = Watch()
    base = watched(lively_base, watch)
    assert base.fingerprint == lively_base.fingerprint
    for model in (base.model, view(base.model), view(view(base.model))):
        model(input_ids=TOKENS)
    lively_base.model(input_ids=TOKENS)
    assert watch.passes == 3
    watch.stopped = True
    with pytest.raises(Stopped):
        view(base.model)(input_ids=TOKENS)
    lively_base.model(input_ids=TOKENS)


@pytest.fixture
async def version(bake, file, lively_base):
    """A version, its delta in `file`."""
    measured = await bake()
    return Version(
        id="v3",
        base=Base(name=lively_base.name, fingerprint=lively_base.fingerprint),
        parent="v0",
        edits=(BakedEdit(id="e1", revision=1),),
        method="fine_tuning",
        config=CONFIG,
        report=measured,
        artifact=Artifact(digest="a" * 64, size=file.stat().st_size),
        actor="ann",
        created_at=NOW,
        revision=4,
    )


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks for it; transformers warns
@pytest.mark.parametrize("kind", ExportFormat)
async def test_an_export_loads_elsewhere_and_gives_the_same_logits(baker, version, file, lively_base, tmp_path, kind):
    folder = tmp_path / "export"
    folder.mkdir()
    await baker.export(version, file, kind, folder)
    if kind is ExportFormat.HF:
        loaded = AutoModelForCausalLM.from_pretrained(folder)
    else:
        loaded = PeftModel.from_pretrained(view(lively_base.model), folder)
    with torch.no_grad():
        expected = install(lively_base, delta_files.load(file, lively_base))(input_ids=TOKENS).logits
        torch.testing.assert_close(loaded.eval()(input_ids=TOKENS).logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ExportFormat)
async def test_an_export_carries_a_model_card_with_base_edits_and_report(baker, version, file, tmp_path, kind):
    folder = tmp_path / "export"
    folder.mkdir()
    await baker.export(version, file, kind, folder)
    card = (folder / "README.md").read_text()
    assert card.startswith(f'---\nbase_model: "{version.base.name}"\n')
    assert version.base.fingerprint in card
    assert f"| {PROMPT} | {TARGET} |" in card
    assert "| edit_success | all | generated | 1.000 |" in card
    assert "`model.layers.1.mlp.down_proj.weight`" in card


async def test_a_version_of_another_base_is_not_exported(version, file, tiny_base, tmp_path):
    with closing(ModelBaker(tiny_base, suites=SUITES, assets=())) as other, pytest.raises(BaseMismatch):
        await other.export(version, file, ExportFormat.PEFT, tmp_path / "export")


async def test_a_file_that_holds_no_delta_is_not_exported(baker, version, file, tmp_path):
    file.write_bytes(b"nonsense")
    with pytest.raises(ArtifactDamaged, match="delta of v3"):
        await baker.export(version, file, ExportFormat.PEFT, tmp_path / "export")


@contextmanager
def no_file_larger_than(size):
    """What a full disk does to who writes a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_is_said_plainly_and_leaves_no_file(bake, file):
    with no_file_larger_than(5_000), pytest.raises(StorageFull, match=os.strerror(errno.EFBIG)):
        await bake()
    assert list(file.parent.iterdir()) == []
