"""Fine-tuning and what it has to beat: on the labels it says, chosen on val, the same twice."""

from dataclasses import replace

import pytest
import torch

from nnclr_study.trainer import protocols
from nnclr_study.trainer.data import load_dataset
from nnclr_study.trainer.loop import train
from nnclr_study.trainer.protocols import PROTOCOLS, Subject, labelled_share, score
from nnclr_study.trainer.world import World
from tests.trainer.test_loop import config


@pytest.fixture(scope="module", params=["conv4", "resnet18"])
def trial(request, tmp_path_factory):
    widths = {"conv4": 8, "resnet18": 4}
    small = config(encoder=request.param, width=widths[request.param], epochs=1)
    digits = load_dataset(small, tmp_path_factory.mktemp("data"))
    snapshot = next(train(small, digits, World()))
    tensors = {name: tensor.clone() for name, tensor in snapshot.tensors.items()}
    return replace(snapshot, tensors=tensors), digits


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(protocols, "STEPS", 6)
    monkeypatch.setattr(protocols, "CHECK_EVERY", 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_gives_the_same_twice_and_never_chooses_on_test(trial, protocol):
    snapshot, digits = trial
    first = score(protocol, Subject.of(snapshot), digits, World())
    wrong = digits.test._replace(labels=torch.full_like(digits.test.labels, -1))
    second = score(protocol, Subject.of(snapshot), replace(digits, test=wrong), World())
    assert second == first._replace(test_top1=0.0)
    assert first.test_top1 > 0
    assert score(protocol, Subject.of(snapshot), digits, World()) == first
    used = {"1": 10, "10": 40, "100": 400}.get(protocol.split("-")[-1], 400)
    assert first.labels == pytest.approx(used, abs=4)
    if "-" in protocol:
        assert first.chosen["learning_rate"] in protocols.LEARNING_RATES
        assert first.chosen["step"] in (3, 6)


def test_pretrained_weights_are_where_fine_tuning_starts(trial, monkeypatch):
    snapshot, digits = trial
    monkeypatch.setattr(protocols, "STEPS", 30)  # after six, all stand at chance
    monkeypatch.setattr(protocols, "CHECK_EVERY", 15)
    pretrained, afresh = (
        score(f"{kind}-100", Subject.of(snapshot), digits, World())
        for kind in ("finetune", "supervised")
    )
    assert pretrained != afresh
    zeros = {name: torch.zeros_like(tensor) for name, tensor in snapshot.tensors.items()}
    blank = replace(snapshot, tensors=zeros)
    assert score("supervised-100", Subject.of(blank), digits, World()) == afresh
    assert score("finetune-100", Subject.of(blank), digits, World()) != pretrained


def test_a_share_of_the_labels_is_a_share_of_every_class():
    labels = torch.arange(1000).remainder(7).clamp(max=5)
    shares = {percent: labelled_share(labels, percent) for percent in (1, 10, 100)}
    assert torch.equal(shares[100], torch.arange(1000))
    assert set(shares[1].tolist()) < set(shares[10].tolist())
    for percent, rows in shares.items():
        counts, whole = labels[rows].bincount(), labels.bincount()
        assert (counts - whole * percent / 100).abs().max() <= 0.5
    few = labelled_share(torch.tensor([0, 1, 1, 2]), 1)
    assert torch.tensor([0, 1, 1, 2])[few].tolist() == [0, 1, 2], "one of each at the least"


def test_it_learns(trial, monkeypatch):
    snapshot, digits = trial
    monkeypatch.setattr(protocols, "STEPS", 120)
    monkeypatch.setattr(protocols, "LEARNING_RATES", (1e-2,))
    scored = score("finetune-100", Subject.of(snapshot), digits, World())
    assert scored.test_top1 > 0.5
