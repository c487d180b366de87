"""Embeddings that are kept: of a network that stays as it is, for other heads, shots and commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from metarun.run.features import Features, hash_network


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()


def embed(folder: Path, net: nn.Module, batches: list[Tensor], key: str = "k") -> tuple[list[Tensor], int]:
    """The embeddings of batches by a store of its own, and how many of them were computed."""
    made = []
    features = Features(folder, key)
    encode = features.remember(net, lambda x: made.append(x) or net(x).detach())
    found = [encode(x) for x in batches]
    features.write()
    return found, len(made)


BATCHES = [torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (4, 4, 2)]


def test_a_batch_is_embedded_once_and_by_the_next_command_not_at_all(tmp_path: Path) -> None:
    net = network()
    found, computed = embed(tmp_path, net, [*BATCHES, BATCHES[0]])
    assert computed == 2  # two batches of four are the same
    again, computed = embed(tmp_path, net, BATCHES)
    assert computed == 0
    for one, other, x in zip(found, again, BATCHES, strict=False):
        assert torch.equal(one, other)
        assert torch.equal(one, net(x))


def test_embeddings_that_lie_in_memory_otherwise_are_kept_too(tmp_path: Path) -> None:
    """As the maps of FRN, whose channels come last, and parts of one tensor."""
    kept = Features(tmp_path, "")
    whole = torch.randn(4, 3, 5)
    parts = {"maps": whole.transpose(1, 2), "one": whole[:2], "other": whole[2:]}
    encode = kept.remember(network(), lambda x: parts[names[len(x)]])
    names = dict(zip((1, 2, 3), parts, strict=True))
    for n in names:
        encode(torch.zeros(n, 3))
    kept.write()
    again = Features(tmp_path, "").remember(network(), lambda x: pytest.fail("computed twice"))
    assert all(torch.equal(again(torch.zeros(n, 3)), parts[name]) for n, name in names.items())


def test_another_number_of_the_network_another_layer_and_another_setting_begin_anew(tmp_path: Path) -> None:
    embed(tmp_path, network(), BATCHES)
    moved, averaged = network(), network()
    moved[0].weight.data[0, 0] += 1e-6
    averaged[1].running_mean += 1.0
    other = nn.Sequential(*network(), nn.Tanh()).eval()
    for changed in (moved, averaged, other):
        found, computed = embed(tmp_path, changed, BATCHES)
        assert computed == 2
        assert torch.equal(found[0], changed(BATCHES[0]))
    assert embed(tmp_path, network(), BATCHES, "other precision")[1] == 2
    assert embed(tmp_path, network(), [BATCHES[0] + 1])[1] == 1
    assert hash_network(network(), "k") == hash_network(network(), "k")


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: object) -> None:
    net = network()
    embed(tmp_path, net, BATCHES)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    found, computed = embed(tmp_path, net, BATCHES)
    assert computed == 2
    assert torch.equal(found[2], net(BATCHES[2]))
    assert embed(tmp_path, net, BATCHES)[1] == 0


def test_what_is_too_large_or_cannot_be_written_is_computed_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    net, file = network(), tmp_path / "file"
    file.write_text("in the folder's place")
    assert embed(file / "folder", net, BATCHES)[1] == 2
    assert "embeddings are not kept for the next command" in caplog.text
    monkeypatch.setattr("metarun.run.features.MAX_BYTES", 4 * 2 * 4)  # of one batch of four
    assert embed(tmp_path, net, BATCHES)[1] == 2
    assert embed(tmp_path, net, BATCHES)[1] == 1
