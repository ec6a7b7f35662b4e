from __future__ import annotations

import pytest
import torch

from editors.errors import ContextExceeded
from editors.model.anatomy import ANATOMIES
from editors.model.loading import load_base
from editors.model.views import view
from editors.surgery.batch import Batch
from editors.surgery.tails import Tails
from editors.surgery.trace import added
from tests.tiny_models import save_lively

SEQUENCES = [[5, 9, 14, 30, 7], [8, 11, 20, 3, 40, 41, 6], [12, 60]]
STARTS = [2, 3, 0]


@pytest.fixture(scope="module", params=ANATOMIES)
def base(request, tmp_path_factory):
    return load_base(save_lively(request.param, tmp_path_factory.mktemp("lively") / request.param), device="cpu")


@pytest.mark.parametrize("layer", [0, 1])
@torch.no_grad()
def test_an_end_run_again_says_what_the_whole_sequence_says(base, layer):
    model, path = view(base.model), base.anatomy.within(layer, base.anatomy.mlp_out)
    last = [len(sequence) - 1 for sequence in SEQUENCES]
    change = torch.randn(2 * len(SEQUENCES), 32, generator=torch.Generator().manual_seed(0))
    whole = Batch.of(base, SEQUENCES)
    with added(model, path, torch.cat([whole.place(STARTS), whole.place(last)]), change):
        expected = whole.log_probabilities(model, whole.place(last))
    tails = Tails.of(base, model, SEQUENCES, STARTS, layer)
    unchanged = tails.log_probabilities(model, tails.place(last))
    for _ in range(2):  # a pass must leave nothing for the next one
        with added(model, path, torch.cat([tails.place(STARTS), tails.place(last)]), change):
            found = tails.log_probabilities(model, tails.place(last))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, unchanged, atol=1e-3)
    torch.testing.assert_close(tails.log_probabilities(model, tails.place(last)), unchanged)


def test_a_gradient_through_ends_is_the_whole_sequences(base):
    model, path = view(base.model).requires_grad_(requires_grad=False), base.anatomy.within(0, base.anatomy.mlp_out)
    last = [len(sequence) - 1 for sequence in SEQUENCES]
    gradients = []
    for own in (Batch.of(base, SEQUENCES), Tails.of(base, model, SEQUENCES, STARTS, 0)):
        change = torch.zeros(len(SEQUENCES), 32, requires_grad=True)
        with torch.enable_grad(), added(model, path, own.place(STARTS), change):
            loss = own.log_probabilities(model, own.place(last))[:, 17].sum()
        gradients += torch.autograd.grad(loss, [change])
    assert float(gradients[0].norm()) > 0
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


def test_a_sequence_beyond_the_context_is_refused(base):
    with pytest.raises(ContextExceeded):
        Tails.of(base, base.model, [[5] * (base.context_length + 1)], [2], 0)
