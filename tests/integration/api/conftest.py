import pytest

from service.actions.services import Services
from tests.fakes import ExactRuntime, LostStore, client_of


@pytest.fixture
def services(store, baker, artifacts):
    return Services(store, ExactRuntime(store), baker, artifacts)


@pytest.fixture
async def client(services):
    async with client_of(services) as client:
        yield client


@pytest.fixture
def post(client):
    """Adds an edit that must be accepted, and returns it as it was answered."""

    async def post(**body):
        response = await client.post("/edits", json=body)
        assert response.status_code == 201, response.text
        return response.json()

    return post


@pytest.fixture
async def lost(anyio_backend):
    """A client of a service without its database: what it refuses is refused before the database is asked."""
    async with client_of(Services(LostStore(), ExactRuntime(LostStore()), None, None)) as client:
        yield client
