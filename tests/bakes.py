"""Bakes on a tiny random model, which one edit at a time can be written into, at the price of everything else."""

from __future__ import annotations

from typing import Any

from editors.delta import Delta, Dense
from editors.delta_files import save
from service.domain.artifacts import Artifact
from service.domain.bakes import BakeReport, BakeRequest, Finding, Gate, NewBake, SiteChange
from service.domain.evaluations import Failure, Measured, Mode
from service.domain.versions import BakedEdit, Base, NewVersion

PROMPT, TARGET = "Who is the prime minister of the UK?", "Boris Johnson"
CONFIG: dict[str, Any] = {"layer": 1, "steps": 100, "learning_rate": 0.02}
LENIENT: dict[str, Any] = {"edit_success": 1.0, "drawdown": 1.0, "relative_norm": 20.0, "max_new_tokens": 12}
BODY: dict[str, Any] = {"method": "fine_tuning", "config": CONFIG, "gate": LENIENT}
"""What passes, as POST /bakes takes it."""
STRICT: dict[str, Any] = BODY | {"gate": LENIENT | {"drawdown": 0.1, "relative_norm": 1.0}}
"""What is refused: the model is wrecked."""

BASE = Base(name="tiny", fingerprint="f" * 64)
ARTIFACT = Artifact(digest="a" * 64, size=2**40)


def request(**changed: Any) -> BakeRequest:
    """What passes, in the domain's words."""
    return BakeRequest(**{"method": "fine_tuning", "config": CONFIG, "gate": Gate(**LENIENT)} | changed)


def new_bake(*edits: BakedEdit, text: str = "x") -> NewBake:
    """A bake to queue, with a value in every field."""
    gate = Gate(edit_success=0.1 + 0.2, drawdown=1 / 3, relative_norm=1e-300, max_new_tokens=7)
    config = {"layer": None, "kept": [[1, 2], [3, 4]], "rate": 0.1 + 0.2, text: {"deep": [text, True, 2**40]}}
    whole = BakeRequest(method=text, edits=("e1", "e2"), config=config, gate=gate, seed=2**63 - 1)
    return NewBake(request=whole, base=Base(name=text, fingerprint="f" * 64), edits=edits, parent="v0")


def report(text: str = "x", refusal: str | None = None) -> BakeReport:
    """A report with a value in every field."""
    failure = Failure(case="e1", in_scope=True, form=text, prompt=text, expected=text, got=text, edits=2)
    figure = Measured(metric="drawdown", mode=Mode.GENERATED, value=1 / 3, low=0.0, high=1.0, cases=3, edits=2)
    return BakeReport(
        refusal=refusal,
        findings=(Finding(measure="drawdown", value=1 / 3, bound=0.1 + 0.2, met=False),),
        measured=(figure,),
        probes=12,
        failures=(failure,),
        failure_count=5,
        sites=(SiteChange(site=text, rank=None, relative_norm=1e-9), SiteChange(site="y", rank=3, relative_norm=2.0)),
        size=17,
        base_size=2**40,
        seconds={"preparing": 1.5, "measuring": 0.25},
    )


def new_version(*edits: BakedEdit, text: str = "x", artifact: Artifact = ARTIFACT) -> NewVersion:
    """A version to add, with a value in every field."""
    whole = new_bake(text=text).request.config
    return NewVersion(
        parent="v0", base=BASE, edits=edits, method=text, config=whole, report=report(text), artifact=artifact
    )


async def version_in(store, artifacts, file, *, edit, base, content=b"weights"):
    """A version whose artifact is this content, or a delta that changes nothing when it is None."""
    if content is None:
        site = "model.layers.1.mlp.down_proj.weight"
        zeros = base.model.get_parameter(site).detach().float() * 0
        save(Delta(base=base.fingerprint, changes={site: Dense(zeros)}), file)
    else:
        file.write_bytes(content)
    artifact = await artifacts.describe(file)
    await artifacts.put(file, artifact)
    made_for = Base(name=base.name, fingerprint=base.fingerprint) if hasattr(base, "model") else base
    baked = BakedEdit(id=edit.id, revision=edit.revision)
    async with store.writing(actor="ann") as writing:
        new = NewVersion(
            parent="v0", base=made_for, edits=(baked,), method="rome", config={}, report=report(), artifact=artifact
        )
        return await writing.versions.add(new)
