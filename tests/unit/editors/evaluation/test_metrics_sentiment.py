import math

import pytest
import torch

from editors.evaluation.records import RepliesScored
from editors.evaluation.sentiment import divergence, log_likelihood, sentiment_success, z_sent, z_topic
from editors.evaluation.subject import Scored


def reply(*log_probabilities):
    return Scored(log_probabilities, tuple(False for _ in log_probabilities))


def test_success_is_mood_times_topic():
    # l+ = (-1 - 2 - 3) / 3 = -2 after and (-1 - 1 - 1) / 3 = -1 before; l- = -4 after.
    replies = RepliesScored(
        wished_before=(reply(-1, -1), reply(-1)),
        wished_after=(reply(-1, -2), reply(-3)),
        opposite_before=(reply(-1),),
        opposite_after=(reply(-4),),
    )
    assert log_likelihood(replies.wished_after) == -2
    assert z_sent(replies) == pytest.approx(0.8807971)  # 1 / (1 + e^-2)
    assert z_topic(replies) == pytest.approx(0.3678794)  # e^-1
    assert sentiment_success(replies) == pytest.approx(0.880797 * 0.367879, abs=1e-6)


def test_success_is_the_same_by_tensors():
    torch.manual_seed(0)
    before, after, opposite = (torch.randn(4, 5).sub(3).double() for _ in range(3))
    replies = RepliesScored(
        wished_before=tuple(reply(*row) for row in before.tolist()),
        wished_after=tuple(reply(*row) for row in after.tolist()),
        opposite_before=(),
        opposite_after=tuple(reply(*row) for row in opposite.tolist()),
    )
    z_s = torch.sigmoid(after.mean() - opposite.mean())
    z_t = torch.clamp(torch.exp(after.mean() - before.mean()), max=1)
    assert sentiment_success(replies) == pytest.approx(float(z_s * z_t), rel=1e-12)


def test_a_model_that_never_changes_keeps_the_topic_and_has_the_mood_it_had():
    replies = RepliesScored(
        wished_before=(reply(-3, -3),),
        wished_after=(reply(-3, -3),),
        opposite_before=(reply(-1),),
        opposite_after=(reply(-1),),
    )
    assert z_topic(replies) == 1
    assert sentiment_success(replies) == pytest.approx(1 / (1 + math.e**2))


def test_extremes_do_not_overflow():
    far, near = (reply(-5000.0),), (reply(0.0),)
    won = RepliesScored(wished_before=far, wished_after=near, opposite_before=near, opposite_after=far)
    lost = RepliesScored(wished_before=near, wished_after=far, opposite_before=far, opposite_after=near)
    assert (sentiment_success(won), sentiment_success(lost)) == (1, 0)


def test_divergence_by_hand():
    # KL((1/2, 1/2) || (1/4, 3/4)) = ln 2 / 2 + ln(2/3) / 2 = ln(4/3) / 2, and 0 on the second and third token.
    base = [torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()]
    edited = [torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()]
    assert divergence(base, edited) == pytest.approx(math.log(4 / 3) / 2 / 3, rel=1e-5)


def test_divergence_is_torch_s():
    torch.manual_seed(1)
    base = [torch.randn(tokens, 11).log_softmax(-1) for tokens in (3, 1, 6)]
    edited = [torch.randn(tokens, 11).log_softmax(-1) for tokens in (3, 1, 6)]
    reference = torch.nn.functional.kl_div(torch.cat(edited), torch.cat(base), reduction="batchmean", log_target=True)
    assert divergence(base, edited) == pytest.approx(float(reference), rel=1e-5)
    assert divergence(base, edited) != pytest.approx(divergence(edited, base), rel=1e-3)
    assert divergence(base, base) == 0


def test_what_the_base_cannot_say_does_not_count_and_what_the_edit_forbids_counts_without_end():
    sure, open_ = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert divergence([sure], [open_]) == pytest.approx(math.log(2))
    assert divergence([sure], [sure]) == 0
    assert divergence([open_], [sure]) == math.inf


def test_distributions_over_other_replies_are_refused():
    with pytest.raises(ValueError, match="the same replies"):
        divergence([torch.zeros(2, 3)], [torch.zeros(3, 3)])
