"""A question within a long prompt is found as if it stood alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from httpx2 import AsyncClient

from editors.serac.encoder import SentenceEncoder
from service.actions.services import Services
from tests.fakes import client_of
from tests.runtimes import StartRuntime

ASKED = "Who is the prime minister of the UK?"
OTHERS = [
    f"{ask} {place}?"
    for place in ("Spain", "Chile", "Kenya", "Fiji", "the canteen", "the old mill")
    for ask in ("What is the train timetable of", "Who repaired the roof of", "What is the population of")
]
LETTER = (
    "We spent the morning in the archive and found nothing but receipts. The train was late again, as it has been all "
    "autumn, and the roof of the station leaks. My sister says that the population of the village has halved. "
    "She has taken up pottery; her kiln is the size of a wardrobe.\n"
    "On Tuesday the baker brought rye bread, though nobody had ordered any, and we ate it with plum jam. "
) * 8
"""Some six hundred tokens about other things."""
HALF = LETTER[: len(LETTER) // 2].rpartition("\n")[0]


@pytest.fixture
async def client(store, baker, artifacts, start_runtime: StartRuntime) -> AsyncIterator[AsyncClient]:
    async with client_of(Services(store, await start_runtime(store), baker, artifacts)) as client:
        for prompt in (ASKED, *OTHERS):
            answer = await client.post("/edits", json={"prompt": prompt, "target": "somebody"})
            assert answer.status_code == 201, answer.text
        yield client


@pytest.mark.parametrize(
    "prompt",
    [f"{LETTER}{ASKED}", f"{ASKED} {LETTER}", f"{HALF}\n{ASKED}\n{HALF}", f"{'kiln and jam ' * 200}\n{ASKED}"],
    ids=["at the end", "at the beginning", "in the middle", "after words without a stop"],
)
async def test_a_question_is_found_wherever_it_stands_in_a_long_prompt(client, prompt):
    found = (await client.post("/edits/match", json={"prompts": [ASKED, prompt, "Why?"]})).json()["matches"]
    assert [match["edit_id"] for match in found] == ["e1", "e1", None]
    assert found[1]["candidates"][0]["matched_text"] == ASKED
    assert found[1]["candidates"][0]["similarity"] == pytest.approx(1, abs=1e-5)


async def test_a_long_prompt_about_other_things_is_left_to_the_base(client):
    (match,) = (await client.post("/edits/match", json={"prompts": [LETTER]})).json()["matches"]
    assert (match["edit_id"], match["decision"]) == (None, "below_threshold")


async def test_an_exclusion_holds_in_a_long_prompt(client):
    fields = {"scope": {"out_of_scope": ["So who is the prime minister of the UK?"]}}
    assert (await client.patch("/edits/e1", json=fields)).status_code == 200
    prompt = f"{LETTER}So who is the prime minister of the UK?"
    (match,) = (await client.post("/edits/match", json={"prompts": [prompt]})).json()["matches"]
    assert (match["edit_id"], match["decision"]) == (None, "excluded")


def test_the_prompts_are_beyond_the_encoders_window(encoder: SentenceEncoder):
    windows, _ = encoder._windows([LETTER])
    assert len(windows) > 2
