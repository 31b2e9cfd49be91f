"""The support set against its definition: `cat([batch, queue])[:size]`."""

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


@pytest.mark.parametrize("size", [1, 40, 41, 95, 120])
def test_the_look_up_in_chunks_is_the_look_up_at_once(size, monkeypatch):
    monkeypatch.setattr(support_set, "CHUNK", 40)
    support = make(size, dim=8)
    queries = F.normalize(torch.randn(17, 8))
    assert torch.equal(support.nearest(queries), (queries @ support.bank_QD.T).argmax(1))


def test_a_row_that_is_there_finds_itself():
    support = make(50)
    rows = F.normalize(torch.randn(7, 3))
    support.push(rows)
    assert torch.equal(support.bank_QD[support.nearest(rows)], rows)


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
    support.push(rows)
    other.push(rows)
    assert torch.equal(other.newest_first(), support.newest_first())
