"""What is put into the store comes out of it, and what must not answer does not."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from service.domain.changes import ChangeKind
from service.domain.edits import (
    AnswerMode,
    Descriptor,
    EditFilter,
    EditKind,
    EditState,
    Embeddings,
    NewEdit,
    Scope,
    StoredEdit,
)
from service.errors import EditConflict, EditNotFound

pytestmark = pytest.mark.anyio

PAST = datetime(2020, 2, 29, 12, tzinfo=UTC)
FUTURE = datetime(2100, 1, 1, microsecond=1, tzinfo=UTC)
EVERY_STATE = tuple(EditState)
TEXTS = [
    "plain",
    "Qui est le premier ministre ? Œuvre",
    "e\u0301 and \u00e9 are not the same here",
    "من هو رئيس الوزراء؟ \u200f(بريطانيا)",
    "היום",
    "誰が首相ですか?",
    "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁳󠁣󠁴󠁿",
    "tab\t newline\n quote \" ' backslash \\ \\u0041 percent % dollar $1 :name {}",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
async def test_every_field_of_an_edit_comes_back_as_it_was_put(store, add, text):
    descriptor = Descriptor(
        prompt=f"prompt {text}",
        target=f"target {text}",
        kind=EditKind.STATEMENT,
        subject=text,
        scope=Scope(in_scope=(text, "b"), out_of_scope=("c", text), threshold=0.1 + 0.2),
        answer=AnswerMode.VERBATIM,
    )
    embeddings = Embeddings(encoder=f"encoder {text}", vectors=bytes(range(256)))
    old = await add()
    new = await add(
        descriptor=descriptor,
        embeddings=embeddings,
        expires_at=FUTURE,
        reason=text,
        tags=(text, "t"),
        supersedes=old.id,
    )
    async with store.reading() as reading:
        assert await reading.edits.get(new.id) == new
        assert await reading.edits.with_ids((new.id,)) == (StoredEdit(edit=new, embeddings=embeddings),)
    assert new.descriptor == descriptor
    assert (new.state, new.expires_at, new.reason) == (EditState.ACTIVE, FUTURE, text)
    assert (new.tags, new.supersedes, new.superseded_by) == ((text, "t"), old.id, None)
    assert new.created_at == new.updated_at
    assert new.created_at.tzinfo is UTC
    assert (old.revision, new.revision) == (1, 2)


async def test_the_least_an_edit_needs_comes_back_too(store, add):
    edit = await add("p", "")
    async with store.reading() as reading:
        assert await reading.edits.get(edit.id) == edit
    assert edit.descriptor == Descriptor(prompt="p")
    assert (edit.expires_at, edit.reason, edit.tags, edit.supersedes) == (None, None, (), None)


async def test_a_prompt_longer_than_an_index_entry_is_found_by_its_key(store, add):
    letters = random.Random(7).choices([chr(code) for code in range(0x4E00, 0x9FFF)], k=32_768)
    edit = await add("".join(letters))
    async with store.reading() as reading:
        assert await reading.edits.active_with_key(edit.descriptor.key) == edit


@pytest.mark.parametrize(
    "edit_id", ["e2", "e0", "e01", "e-1", "17", "e", "", "E1", "e1 ", "e1\n", "e¹", "e" + "9" * 40]
)
async def test_an_id_that_names_no_edit_finds_none(store, add, edit_id):
    await add()
    async with store.reading() as reading:
        assert await reading.edits.get(edit_id) is None
        assert await reading.edits.with_ids((edit_id,)) == ()
    async with store.writing(actor="tester") as writing:
        with pytest.raises(EditNotFound):
            await writing.edits.retract(edit_id)


async def test_two_active_edits_cannot_share_a_key(store, add):
    first = await add("Who is the UK's prime minister?", "Boris Johnson")
    with pytest.raises(EditConflict):
        await add("  who is the uk's  PRIME minister", "Theresa May")
    async with store.reading() as reading:
        assert (await reading.edits.page(EditFilter(states=EVERY_STATE))).data == (first,)
        assert await reading.changes.revision() == 1


async def test_drafts_and_retracted_edits_leave_the_key_free(store, add):
    draft = await add(state=EditState.DRAFT)
    first = await add()
    async with store.writing(actor="tester") as writing:
        await writing.edits.retract(first.id)
    second = await add()
    async with store.reading() as reading:
        assert await reading.edits.active_with_key(draft.descriptor.key) == second
        assert await reading.edits.count() == 1


async def test_a_retracted_edit_no_longer_answers_and_can_still_be_read(store, add):
    edit = await add(reason="a new minister")
    async with store.writing(actor="tester") as writing:
        retracted = await writing.edits.retract(edit.id, reason="a mistake")
    assert retracted == replace(edit, state=EditState.RETRACTED, revision=2, updated_at=retracted.updated_at)
    assert retracted.updated_at > edit.updated_at
    async with store.reading() as reading:
        assert await reading.edits.get(edit.id) == retracted
        assert await reading.edits.active() == ()
        assert await reading.edits.active_with_key(edit.descriptor.key) is None
        assert await reading.edits.count() == 0


async def test_an_edit_is_retracted_once(store, add):
    edit = await add()
    async with store.writing(actor="tester") as writing:
        await writing.edits.retract(edit.id)
    with pytest.raises(EditNotFound):
        async with store.writing(actor="tester") as writing:
            await writing.edits.retract(edit.id)


async def test_an_edit_replaces_the_one_it_supersedes_in_one_transaction(store, add):
    old = await add(target="Theresa May")
    descriptor = replace(old.descriptor, target="Boris Johnson")
    async with store.writing(actor="tester") as writing:
        new = await writing.edits.add(
            NewEdit(descriptor=descriptor, supersedes=old.id), Embeddings(encoder="test", vectors=b"")
        )
        replaced = await writing.edits.retract(old.id, superseded_by=new.id)
    assert (replaced.state, replaced.superseded_by, new.supersedes) == (EditState.RETRACTED, new.id, old.id)
    async with store.reading() as reading:
        assert await reading.edits.active_with_key(old.descriptor.key) == new


@pytest.mark.parametrize("unknown", ["e99", "nonsense", ""])
async def test_an_edit_cannot_supersede_one_that_never_was(store, add, unknown):
    with pytest.raises(EditNotFound):
        await add(supersedes=unknown)
    async with store.reading() as reading:
        assert await reading.changes.revision() == 0


async def test_an_expired_edit_is_seen_as_expired_and_does_not_answer(store, add):
    expired = await add("old", expires_at=PAST)
    live = await add("new", expires_at=datetime.now(UTC) + timedelta(days=1))
    draft = await add("draft", state=EditState.DRAFT, expires_at=PAST)
    async with store.reading() as reading:
        assert (await reading.edits.get(expired.id)).state is EditState.EXPIRED
        assert await reading.edits.active_with_key(expired.descriptor.key) is None
        assert [stored.edit for stored in await reading.edits.active()] == [live]
        assert await reading.edits.count() == 1
        assert ids(await reading.edits.page(EditFilter(states=(EditState.EXPIRED,)))) == [expired.id]
        assert ids(await reading.edits.page(EditFilter(states=(EditState.ACTIVE,)))) == [live.id]
        assert (await reading.edits.get(draft.id)).state is EditState.DRAFT


async def test_an_expired_edit_does_not_block_a_new_one_with_its_key(store, add):
    expired = await add(expires_at=PAST)
    new = await add()
    async with store.reading() as reading:
        assert await reading.edits.active_with_key(new.descriptor.key) == new
        assert (await reading.edits.get(expired.id)).state is EditState.EXPIRED
        assert [change.kind for change in await reading.changes.since(0, limit=9)] == [
            ChangeKind.EDIT_ADDED,
            ChangeKind.EDIT_EXPIRED,
            ChangeKind.EDIT_ADDED,
        ]


async def test_an_expired_edit_can_be_retracted(store, add):
    edit = await add(expires_at=PAST)
    async with store.writing(actor="tester") as writing:
        assert (await writing.edits.retract(edit.id)).state is EditState.RETRACTED
    async with store.reading() as reading:
        _, expired, retracted = await reading.changes.of(edit.id)
    assert (expired.kind, retracted.kind) == (ChangeKind.EDIT_EXPIRED, ChangeKind.EDIT_RETRACTED)
    assert (expired.actor, retracted.actor) == ("errata", "tester")
    assert expired.payload == {"previous_state": "active", "expires_at": "2020-02-29T12:00:00Z"}
    assert retracted.payload == {"previous_state": "expired"}


async def test_a_writer_first_records_all_that_has_expired_in_the_order_of_their_ends(store, add):
    texts = ("b", "a", "c")
    ends = {text: PAST + timedelta(days=place) for place, text in enumerate(sorted(texts))}
    async with store.writing(actor="tester") as writing:  # in one transaction, or each would record the one before
        for text in texts:
            new = NewEdit(descriptor=Descriptor(prompt=text), expires_at=ends[text])
            await writing.edits.add(new, Embeddings(encoder="test", vectors=b""))
    async with store.reading() as reading:
        assert await reading.edits.overdue()
    newest = await add("new")
    async with store.reading() as reading:
        assert not await reading.edits.overdue()
        changes = await reading.changes.since(3, limit=9)
        edits = {edit.id: edit for edit in (await reading.edits.page(EditFilter())).data}
    assert [(c.revision, c.subject_id) for c in changes] == [(4, "e2"), (5, "e1"), (6, "e3"), (7, newest.id)]
    assert {edits[c.subject_id].revision for c in changes} == {4, 5, 6, 7}


async def test_embeddings_are_replaced_without_a_change(store, add):
    edit = await add()
    fresh = Embeddings(encoder="another", vectors=b"\1\2\3\4")
    async with store.writing(actor="tester") as writing:
        await writing.edits.embed_again(edit.id, fresh)
    async with store.reading() as reading:
        assert await reading.edits.active() == (StoredEdit(edit=edit, embeddings=fresh),)
        assert await reading.changes.revision() == 1


async def test_active_edits_and_edits_by_id_come_oldest_first(store, add):
    edits = [await add(f"prompt {number}") for number in range(3)]
    wanted = tuple(edit.id for edit in reversed(edits))
    async with store.reading() as reading:
        assert [stored.edit for stored in await reading.edits.active()] == edits
        assert [stored.edit for stored in await reading.edits.with_ids(wanted)] == edits


async def test_pages_follow_one_another_newest_first_until_the_last(store, add):
    edits = [await add(f"prompt {number}") for number in range(5)]
    seen, after, more = [], None, True
    async with store.reading() as reading:
        while more:
            page = await reading.edits.page(EditFilter(limit=2, after=after))
            assert len(page.data) <= 2
            seen += page.data
            after, more = page.data[-1].id, page.has_more
        assert ids(await reading.edits.page(EditFilter(limit=5))) == [edit.id for edit in reversed(edits)]
        assert (await reading.edits.page(EditFilter(limit=5))).has_more is False
        assert (await reading.edits.page(EditFilter(after="nonsense"))).data == ()
    assert seen == list(reversed(edits))


async def test_a_listing_leaves_out_retracted_edits_unless_asked(store, add):
    draft, active, gone = await add("a", state=EditState.DRAFT), await add("b"), await add("c")
    async with store.writing(actor="tester") as writing:
        await writing.edits.retract(gone.id)
    async with store.reading() as reading:
        assert ids(await reading.edits.page(EditFilter())) == [active.id, draft.id]
        wanted = EditFilter(states=(EditState.RETRACTED, EditState.DRAFT))
        assert ids(await reading.edits.page(wanted)) == [gone.id, draft.id]


async def test_a_listing_can_be_narrowed_by_tag_and_kind_together(store, add):
    fact = Descriptor(prompt="The Thames flows through Paris.", target="False", kind=EditKind.FACT)
    await add("untagged")
    wanted = await add(descriptor=fact, tags=("geo", "river"))
    other = await add("tagged", tags=("geo",))
    async with store.reading() as reading:
        assert ids(await reading.edits.page(EditFilter(tag="geo"))) == [other.id, wanted.id]
        assert ids(await reading.edits.page(EditFilter(kind=EditKind.FACT))) == [wanted.id]
        assert ids(await reading.edits.page(EditFilter(tag="geo", kind=EditKind.FACT))) == [wanted.id]
        assert ids(await reading.edits.page(EditFilter(tag="ge"))) == []


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("50%", ["e1"]),
        ("a_b", ["e3", "e2"]),
        ("a b", ["e3", "e2"]),
        ("name a", ["e2"]),
        ('"name a"', []),
        ('"a name', ["e2"]),
        ("CAFE\u0301", ["e4"]),
        ("STRASSE", ["e4"]),
        ("théâtre", ["e5"]),
        ("THATCHER", ["e6"]),
        ("thatch", []),
        ("首相", ["e7"]),
        ("誰が", ["e7"]),
        ("相首", []),
        ("الوزراء", ["e7"]),
        ("मंत्री", ["e7"]),
        ("นายก", ["e7"]),
        ("-Thatcher", ["e6"]),
        ("café & !! | <-> :* ' \\", ["e4"]),
        ("\\", []),
        ("%", []),
        ("", []),
        ("nothing like it", []),
    ],
)
async def test_a_search_finds_whole_words_of_any_language_and_reads_no_operators(store, add, q, found):
    for prompt in ("is it 50% off", "is a_b a name", "a\\b", "Le café de la Straße", "LE THÉÂTRE", "axb 500"):
        await add(prompt, "Margaret Thatcher" if prompt.startswith("axb") else "x")
    await add("誰が首相ですか。 ¿من هو رئيس الوزراء؟", "प्रधान मंत्री, นายกรัฐมนตรี")
    async with store.reading() as reading:
        assert ids(await reading.edits.page(EditFilter(q=q))) == found


async def test_texts_as_long_as_can_be_are_kept_and_searched(store, add):
    letters = random.Random(7).choices([chr(code) for code in range(0x20000, 0x2A6DF)], k=32_768)
    longest = await add("".join(letters), "\u0390" * 32_768)
    spelt = await add(" ".join(f"{number:x}" for number in range(9_000)), "x " * 16_384)
    async with store.reading() as reading:
        assert ids(await reading.edits.page(EditFilter(q="".join(letters[:8])))) == [longest.id]
        assert ids(await reading.edits.page(EditFilter(q="22ff 2300"))) == [spelt.id]


def ids(page):
    return [edit.id for edit in page.data]
