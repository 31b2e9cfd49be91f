"""The support set against its definition: `cat([batch, queue])[:size]`."""

from collections import deque

import pytest
import torch
import torch.nn.functional as F

from nnclr_study.trainer import support_set
from nnclr_study.trainer.support_set import SupportSet


def make(size, dim=3):
    return SupportSet(size, dim, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "size, batch", [(10, 10), (10, 5), (10, 3), (10, 7), (10, 1), (1, 1), (10_000, 525)]
)
def test_it_is_a_fifo_of_any_size_and_any_batch(size, batch):
    support = make(size)
    naive = support.bank_QD.clone()
    for _ in range(2 * size // batch + 2):
        rows = torch.randn(batch, 3)
        support.push(rows)
        naive = torch.cat([rows, naive])[:size]
        assert torch.equal(support.newest_first(), naive)


def test_batches_of_changing_size_wrap_as_well():
    support = make(10)
    naive = support.bank_QD.clone()
    for batch in (3, 10, 1, 7, 9, 4):
        rows = torch.randn(batch, 3)
        support.push(rows)
        naive = torch.cat([rows, naive])[:10]
        assert torch.equal(support.newest_first(), naive)


def test_it_starts_on_the_unit_sphere_from_its_generator_alone():
    support = make(1_000)
    assert torch.allclose(support.bank_QD.norm(dim=1), torch.ones(1_000))
    assert support.bank_QD.mean(0).abs().max() < 0.1
    assert torch.equal(support.bank_QD, make(1_000).bank_QD)


class Naive:
    """A list of (row, label, step of its push), newest first, and who was found when."""

    def __init__(self, support):
        size = len(support.bank_QD)
        self.rows = deque([(row, -1, 0) for row in support.newest_first()], maxlen=size)
        self.step = 0
        self.begin()

    def begin(self):
        self.there = {id(entry) for entry in self.rows}
        self.kept = list(self.rows)  # so that no id is given twice
        self.found = set()

    def observe(self, queries, labels):
        known, same, ages = 0, 0, []
        for query, label in zip(queries, labels, strict=True):
            entry = max(self.rows, key=lambda entry: float(query @ entry[0]))
            self.found.add(id(entry))
            ages.append(self.step - entry[2])
            if label >= 0 and entry[1] >= 0:
                known += 1
                same += int(label) == entry[1]
        return {"nn_known": known, "nn_same": same, "nn_age": sum(ages) / len(ages)}

    def push(self, rows, labels):
        entries = [(row, int(label), self.step) for row, label in zip(rows, labels, strict=True)]
        self.rows.extendleft(reversed(entries))
        self.there |= {id(entry) for entry in entries}
        self.kept += entries
        self.step += 1

    def take_used(self):
        share = len(self.found) / len(self.there)
        self.begin()
        return share


@pytest.mark.parametrize(
    "size, batches", [(10, [10] * 7), (23, [7] * 14), (23, [5, 23, 1, 9] * 3)]
)
def test_what_is_said_of_neighbours_is_a_plain_list_s(size, batches):
    generator = torch.Generator().manual_seed(1)
    support = make(size)
    naive = Naive(support)
    shares, knowns = [], []
    for step, batch in enumerate(batches):
        rows = F.normalize(torch.randn(batch, 3, generator=generator))
        labels = torch.randint(-1, 3, (batch,), generator=generator)
        said = support.observe(support.nearest(rows)[:, 0], labels)
        want = naive.observe(rows, labels)
        assert {name: value.item() for name, value in said.items()} == pytest.approx(want)
        knowns.append(want["nn_known"])
        support.push(rows, labels)
        naive.push(rows, labels)
        assert support.label_Q[support.newest(size)].tolist() == [row[1] for row in naive.rows]
        assert support.pushed_Q[support.newest(size)].tolist() == [row[2] for row in naive.rows]
        assert torch.equal(support.newest_first(), torch.stack([row[0] for row in naive.rows]))
        if step % 5 == 3:  # epochs of unequal length
            shares.append(naive.take_used())
            assert support.take_used().item() == pytest.approx(shares[-1])
    assert 0 < min(shares) < 1
    assert knowns[0] == 0 < max(knowns), "the random rows of the start have no label"


def test_a_push_without_labels_makes_them_unknown():
    support = make(4)
    support.push(torch.randn(4, 3), torch.arange(4))
    support.push(torch.randn(3, 3))
    assert support.label_Q[support.newest(4)].tolist() == [-1, -1, -1, 0]


def test_observing_changes_no_neighbour():
    support = make(30)
    before = {name: tensor.clone() for name, tensor in support.state_dict().items()}
    support.observe(torch.tensor([3, 3, 5]), torch.tensor([-1, 0, 1]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in support.state_dict().items())
    assert support.take_used().item() == pytest.approx(2 / 30)
    assert support.take_used() == 0


@pytest.mark.parametrize("size", [1, 40, 41, 95, 120])
def test_the_look_up_in_chunks_is_the_look_up_at_once(size, monkeypatch):
    monkeypatch.setattr(support_set, "CHUNK", 40)
    support = make(size, dim=8)
    queries = F.normalize(torch.randn(17, 8))
    similarity = queries @ support.bank_QD.T
    assert torch.equal(support.nearest(queries), similarity.argmax(1, keepdim=True))
    several = min(size, 5)
    assert torch.equal(support.nearest(queries, several), similarity.topk(several).indices)


def test_a_row_that_is_there_finds_itself():
    support = make(50)
    rows = F.normalize(torch.randn(7, 3))
    support.push(rows)
    assert torch.equal(support.bank_QD[support.nearest(rows)[:, 0]], rows)


def test_what_is_pushed_is_a_copy_without_gradient():
    support = make(5)
    rows = torch.ones(5, 3, requires_grad=True)
    support.push(rows)
    assert not support.bank_QD.requires_grad
    rows.data.zero_()
    assert support.bank_QD.sum() == 15


def test_its_state_holds_the_place_of_the_next_push():
    support, other = make(10), make(10)
    support.push(torch.randn(7, 3))
    other.load_state_dict(support.state_dict())
    rows = torch.randn(6, 3)
    support.push(rows, torch.arange(6))
    other.push(rows, torch.arange(6))
    assert torch.equal(other.newest_first(), support.newest_first())
    assert torch.equal(other.label_Q, support.label_Q)
    assert torch.equal(other.pushed_Q, support.pushed_Q)
    nearest, labels = torch.arange(10), torch.zeros(10).long()
    assert other.observe(nearest, labels) == support.observe(nearest, labels)
