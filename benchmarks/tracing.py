"""Which layers of the bundle carry its facts, by causal tracing: `python -m benchmarks.tracing`.

Of 100 facts that it knows, as `errata trace` has it (Meng et al. 2022, sec. 2). Some three minutes on two cores.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from random import Random

import matplotlib as mpl

import demo
from benchmarks.report import RESULTS, write
from demo.suites import facts
from editors.model.loading import load_base
from editors.surgery.causal_trace import CausalTrace, TraceConfig, trace_facts
from service.cli.trace import draw

_FACTS = 100


def main() -> None:
    """Trace, and write docs/benchmarks/tracing.md, .json and .svg."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=_FACTS)
    base, told = load_base(demo.BUNDLE, device="cpu"), facts()
    config = TraceConfig()
    found = trace_facts(base, Random(0).sample(told, len(told)), config, limit=parser.parse_args().facts)
    with mpl.rc_context({"svg.hashsalt": "errata"}):
        draw(found, base.name, RESULTS / "tracing.svg")
    write("tracing", "Where atlas-2018 keeps its facts", render(found), {"config": asdict(config), **found.plain()})


def render(found: CausalTrace) -> list[str]:
    """The tables, in Markdown."""
    lines = [
        f"{found.facts} facts. The probability of the answer's first token is {found.clean:.3f}, and with noise on the",
        f"subject's embeddings {found.corrupted:.3f}. A figure is how much of it comes back when one state is put back",
        f"as it was without noise, the average indirect effect; of MLPs and attention {found.window} layer(s) at once.",
        "",
        f"The MLP with most effect at the subject's last token is that of layer {found.layer}, counted from 0.",
    ]
    for state, effects in found.effects.items():
        layers = range(len(next(iter(effects.values()))))
        lines += ["", f"## {state}", "", f"| layer | {' | '.join(effects)} |", f"| --- |{' --- |' * len(effects)}"]
        lines += [f"| {layer} | {' | '.join(f'{own[layer]:.3f}' for own in effects.values())} |" for layer in layers]
    return [*lines, "", "![Average indirect effects](tracing.svg)"]


if __name__ == "__main__":
    main()
