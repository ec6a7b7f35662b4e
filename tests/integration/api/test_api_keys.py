"""Who may do what: API keys, through the doors."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from service.actions import keys
from service.actions.services import Services
from service.api.guard import OPEN_PATHS, declares, needed
from service.app import create_app
from service.domain.keys import KeyScope
from service.errors import Invalid, KeyNameTaken, KeyNotFound
from service.runtime.keyring import LiveKeyring, keep_current
from tests.fakes import ExactRuntime, LostStore, client_of

pytestmark = pytest.mark.anyio

QA = {"prompt": "a", "target": "b"}


@pytest.fixture
def keyring():
    return LiveKeyring()


@pytest.fixture
def services(store, baker, artifacts, keyring):
    return Services(store, ExactRuntime(store), baker, artifacts, keyring)


@pytest.fixture
def make(store, keyring):
    """Makes a key that the replica knows, and returns the header that carries it."""

    async def make(*scopes, name="alice", expires_at=None):
        made = await keys.create(store, name, scopes, expires_at=expires_at)
        await keyring.look(store)
        return {"Authorization": f"Bearer {made.token}"}

    return make


def endpoints():
    """Every route of the application, its path and its endpoint."""
    app = create_app(Services(LostStore(), ExactRuntime(LostStore()), None, None))
    routes = [context.original_route for context in iter_route_contexts(app.routes)]
    assert len(routes) > 20
    return routes


def test_every_endpoint_declares_the_scope_that_it_needs_or_is_on_the_list_of_open_paths():
    undeclared = [route.path for route in endpoints() if route.path not in OPEN_PATHS and not declares(route.endpoint)]
    assert undeclared == []


def test_every_open_path_exists_and_declares_nothing():
    opened = {route.path: route.endpoint for route in endpoints() if route.path in OPEN_PATHS}
    assert set(opened) == OPEN_PATHS
    assert not any(declares(endpoint) for endpoint in opened.values())


def test_an_endpoint_that_declares_nothing_is_the_administrators():
    def forgotten():
        pass

    assert needed(forgotten) is KeyScope.ADMIN


def calls():
    """A call of every guarded endpoint, and the scope it needs."""
    return [
        pytest.param(
            method, route.path_format.format_map(Anything()), needed(route.endpoint), id=f"{method} {route.path}"
        )
        for route in endpoints()
        if isinstance(route, APIRoute) and route.path not in OPEN_PATHS
        for method in sorted(route.methods)
    ]


class Anything(dict):
    def __missing__(self, name):
        return "x1"


def slug(response):
    """What is wrong, by its name in our problems or in OpenAI's errors."""
    page = response.json()
    return page["error"]["code"] if "error" in page else page["type"].removeprefix("/problems/")


@pytest.mark.parametrize(("method", "path", "scope"), calls())
async def test_every_endpoint_refuses_a_caller_without_a_key_and_one_without_its_scope(
    client, make, method, path, scope
):
    others = [one for one in KeyScope if one not in {scope, KeyScope.ADMIN}]
    wrong = await make(*others)
    unsigned = await client.request(method, path)
    openai = path.startswith("/v1/")
    assert (unsigned.status_code, slug(unsigned)) == (401, "invalid_api_key" if openai else "key-needed")
    assert unsigned.headers["WWW-Authenticate"] == 'Bearer realm="errata"'
    refused = await client.request(method, path, headers=wrong)
    if scope is None:
        assert refused.status_code not in {401, 403}
        return
    assert (refused.status_code, slug(refused)) == (403, "scope_missing" if openai else "scope-missing")
    assert openai or refused.json()["scope"] == scope
    assert f"needs the scope {scope}" in refused.text
    assert f'scope="{scope}"' in refused.headers["WWW-Authenticate"]
    for right in (await make(scope, name="right"), await make(KeyScope.ADMIN, name="root")):
        assert (await client.request(method, path, headers=right)).status_code not in {401, 403}


async def test_every_operation_documents_its_scope(client):
    document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    for path, method, operation in operations:
        guarded = path not in OPEN_PATHS
        assert ("security" in operation) == guarded, (method, path)
        assert ({"401", "403", "413", "429"} <= set(operation["responses"])) == guarded, (method, path)


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
async def test_probes_and_the_description_need_no_key(client, make, path):
    await make(KeyScope.ADMIN)
    assert (await client.get(path)).status_code == 200


async def test_while_no_key_was_ever_made_anybody_may_do_anything(client, post):
    assert (await post(**QA))["id"] == "e1"
    assert (await client.get("/edits", headers={"Authorization": "Bearer whatever"})).status_code == 200


async def test_once_every_key_is_revoked_the_service_is_closed_and_not_open(client, make, store, keyring):
    await make(KeyScope.ADMIN)
    await keys.revoke(store, "k1")
    await keyring.look(store)
    assert (await client.get("/edits")).status_code == 401


async def test_an_address_that_others_can_reach_needs_a_key_even_before_there_is_one(store):
    services = Services(store, ExactRuntime(store), None, None, LiveKeyring(always=True))
    async with client_of(services) as client:
        assert (await client.get("/edits")).status_code == 401


async def test_a_path_that_does_not_exist_is_no_way_to_look_around(client, make):
    header = await make(KeyScope.GENERATE)
    assert (await client.get("/nothing")).status_code == 401
    assert (await client.get("/nothing", headers=header)).status_code == 404


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token.replace("errata_k1_", "errata_k2_"),
        lambda token: token.replace("errata_k1_", "errata_k01_"),
        lambda token: token.replace("errata_k1_", ""),
        lambda token: token.upper(),
        lambda token: "",
        lambda token: "é",
    ],
)
async def test_a_token_that_is_nearly_right_opens_nothing(client, make, spoilt):
    header = await make(KeyScope.ADMIN)
    await make(KeyScope.ADMIN, name="bob")
    token = header["Authorization"].removeprefix("Bearer ")
    response = await client.get("/edits", headers={"Authorization": f"Bearer {spoilt(token)}".encode()})
    assert response.status_code == 401
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize("written", ["bearer {}", "BEARER {}", "Bearer  {}"])
async def test_the_scheme_is_read_whatever_its_case(client, make, written):
    token = (await make(KeyScope.EDITS_READ))["Authorization"].removeprefix("Bearer ")
    assert (await client.get("/edits", headers={"Authorization": written.format(token)})).status_code == 200
    assert (await client.get("/edits", headers={"Authorization": f"Basic {token}"})).status_code == 401


async def test_an_expired_key_opens_nothing(client, make):
    past = await make(KeyScope.ADMIN, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    ahead = await make(KeyScope.ADMIN, name="bob", expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert (await client.get("/edits", headers=past)).status_code == 401
    assert (await client.get("/edits", headers=ahead)).status_code == 200


async def test_the_secret_is_kept_nowhere(make, store):
    secret = (await make(KeyScope.ADMIN))["Authorization"].rpartition("_")[2]
    (kept,) = await keys.every(store)
    assert secret not in repr(kept)
    assert len(kept.digest) == 32


async def test_a_change_is_signed_by_the_key_and_says_why(client, make):
    header = await make(KeyScope.EDITS_WRITE, KeyScope.EDITS_READ, KeyScope.EVAL, name="deploy-bot")
    await client.post("/edits", json=QA | {"reason": "elections"}, headers=header)
    await client.delete("/edits/e1?reason=mistake", headers=header)
    history = (await client.get("/edits/e1/history", headers=header)).json()["data"]
    assert [(change["actor"], change["reason"]) for change in history] == [
        ("deploy-bot", "elections"),
        ("deploy-bot", "mistake"),
    ]
    case = {"in_scope": [{"prompt": "a", "target": "b"}]}
    evaluation = await client.post("/eval", json={"cases": [case], "against": "base"}, headers=header)
    assert evaluation.json()["actor"] == "deploy-bot"


async def test_a_refusal_comes_before_anything_of_the_body_is_judged(client, make):
    header = await make(KeyScope.GENERATE)
    spoilt = {"content": b"{", "headers": {"Content-Type": "text/plain"}}
    assert (await client.post("/edits", **spoilt)).status_code == 401
    assert (await client.post("/edits", content=b"{", headers=header)).status_code == 403


@asynccontextmanager
async def following(keyring, store):
    task = asyncio.create_task(keep_current(keyring, store))
    yield
    task.cancel()
    await asyncio.wait([task])


async def test_a_replica_that_follows_takes_a_new_key_and_drops_a_revoked_one(client, store, keyring):
    async with following(keyring, store):
        made = await keys.create(store, "alice", [KeyScope.EDITS_READ], expires_at=None)
        header = {"Authorization": f"Bearer {made.token}"}
        async with asyncio.timeout(60):
            while (await client.get("/edits")).status_code != 401:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert (await client.get("/edits", headers=header)).status_code == 200
            await keys.revoke(store, made.key.id)
            while (await client.get("/edits", headers=header)).status_code != 401:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_while_the_database_is_away_known_keys_open_and_no_others_do(make, keyring):
    header = await make(KeyScope.GENERATE)
    lost = LostStore()
    async with (
        following(keyring, lost),
        client_of(Services(lost, ExactRuntime(lost), None, None, keyring)) as client,
    ):
        await asyncio.sleep(1)
        assert (await client.post("/generate", json={"prompt": "a"}, headers=header)).status_code == 200
        assert (await client.post("/generate", json={"prompt": "a"})).status_code == 401


async def test_two_keys_never_share_a_name_not_even_with_a_revoked_one(store):
    await keys.create(store, "alice", [], expires_at=None)
    await keys.revoke(store, "k1")
    with pytest.raises(KeyNameTaken, match="alice"):
        await keys.create(store, "alice", [], expires_at=None)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\0", "x" * 65, "anonymous", "errata"])
async def test_a_name_that_could_not_sign_is_refused(store, name):
    with pytest.raises(Invalid, match="The name of an API key must"):
        await keys.create(store, name, [], expires_at=None)


@pytest.mark.parametrize("key_id", ["k9", "alice", "", "k0"])
async def test_a_key_that_does_not_exist_cannot_be_revoked(store, key_id):
    with pytest.raises(KeyNotFound):
        await keys.revoke(store, key_id)


async def test_a_key_is_revoked_once(store):
    await keys.create(store, "alice", [], expires_at=None)
    first = await keys.revoke(store, "k1")
    assert await keys.revoke(store, "k1") == first


@pytest.mark.parametrize("host", ["x/livez?", "x/livez#", "x/readyz?a=", "livez"])
async def test_a_host_header_that_looks_like_an_open_path_opens_nothing(client, make, host):
    header = await make(KeyScope.GENERATE)
    assert (await client.get("/edits", headers={"Host": host})).status_code == 401
    assert (await client.get("/edits", headers=header | {"Host": host})).status_code == 403
