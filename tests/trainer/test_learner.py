"""One step, knob by knob: what is looked up, what is queued, what follows slowly."""

import pytest
import torch
import torch.nn.functional as F

from tests.trainer.test_network import learner, views


def projected(trial, view):
    with torch.no_grad():
        return F.normalize(trial.head(trial.encoder(view)))


@pytest.mark.parametrize("pushed_views", [1, 2])
def test_the_queue_takes_the_first_view_or_both(pushed_views):
    trial = learner(queue_size=70, pushed_views=pushed_views)
    before, pair = trial.support.newest_first(), views(32)
    pushed = torch.cat([projected(trial, view) for view in pair[:pushed_views]])
    labels = torch.arange(8)
    trial.contrastive_step(*pair, labels)
    after = trial.support.newest_first()
    assert torch.allclose(after[: len(pushed)], pushed, atol=1e-6)
    assert torch.equal(after[len(pushed) :], before[: 70 - len(pushed)])
    known = trial.support.label_Q[trial.support.newest(len(pushed))].view(pushed_views, 32)
    assert known[:, :24].eq(-1).all()
    assert known[:, 24:].eq(labels).all()
    assert trial.support.pushes == 1, "an age is in steps, whatever is pushed"


def test_the_neighbour_is_any_of_the_k_nearest():
    trial = learner(neighbours=3)
    pair = views(32)
    queries = torch.stack([projected(trial, view) for view in pair])
    nearest = (queries @ trial.support.bank_QD.T).topk(3).indices
    ranks = []
    for trial.steps_taken in range(40):
        picked = torch.stack(trial._look_up(trial.support, queries))
        ranks.append((nearest == picked[:, :, None]).nonzero()[:, 2])
        assert len(ranks[-1]) == 64, "one of the three, for every query"
    share = torch.cat(ranks).bincount(minlength=3) / (40 * 64)
    assert share == pytest.approx([1 / 3] * 3, abs=0.03)
    again = torch.stack(trial._look_up(trial.support, queries))
    assert torch.equal(again, picked), "drawn from seed and step alone"


def test_the_slow_copy_follows_and_fills_the_queue():
    trial = learner(encoder_momentum=0.9)
    pair = views(32)
    trial.contrastive_step(*pair)  # the two have parted
    slow = [p.clone() for p in trial.slow.parameters()]
    with torch.no_grad():
        queued = F.normalize(trial.slow.head(trial.slow.encoder(pair[0])))
    assert not torch.allclose(queued, projected(trial, pair[0]), atol=1e-4)
    trial.contrastive_step(*pair)
    assert torch.allclose(trial.support.newest_first()[:32], queued, atol=1e-6)
    fast = [*trial.encoder.parameters(), *trial.head.parameters()]
    for before, now, new in zip(slow, trial.slow.parameters(), fast, strict=True):
        assert torch.allclose(now, 0.9 * before + 0.1 * new, atol=1e-7)
        assert now.grad is None


def test_without_a_queue_the_slow_copy_s_projections_are_the_positives():
    trial = learner(encoder_momentum=0.5, queue_size=0, loss_blocks=2)
    pair = views(32)
    trial.contrastive_step(*pair)
    fast = [projected(trial, view) for view in pair]
    with torch.no_grad():
        slow = [F.normalize(trial.slow.head(trial.slow.encoder(view))) for view in pair]
    target = torch.arange(32)
    terms = [
        F.cross_entropy(slow[a] @ fast[1 - a].T / trial.config.temperature, target) for a in (0, 1)
    ]
    got = trial.contrastive_step(*pair)["c_loss"]
    assert got.item() == pytest.approx(sum(terms).item() / 2, abs=1e-5)
