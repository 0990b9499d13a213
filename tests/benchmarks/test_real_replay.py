"""The replay on real data's surrogate: its networks are the protocol's, its parts add up."""

import sys

import numpy as np
import pytest
import replay
from program import Records
from protocol import HERE, read_protocol

from archspec.costs.flops import cost_plan


@pytest.fixture(scope="module")
def records() -> Records:
    return Records(HERE / "results", read_protocol())


def test_the_surrogate_has_the_networks_of_the_protocol(records: Records) -> None:
    protocol = records.protocol
    space = replay.Surrogate.of(protocol)
    networks = space.networks()
    own = [replay.params_of(protocol, name) for name in protocol.networks]
    assert len(networks) == 4 * 4 * 8 * 4 * 2
    assert all(params in networks for params in own)
    assert len({str(sorted(params.items())) for params in own}) == len(own) == 40
    for name in ("conv-fue", "full-tom-sum"):
        found = replay.flops_of(protocol, [replay.params_of(protocol, name)])
        assert found == [cost_plan(protocol.plan(name, 1e-3)).flops]
    assert space.features(own[:2], [10**8, 10**9])[:, -1].tolist() == [8, 9]
    assert space.features(own, [1] * 40)[:, :-1].sum(1).tolist() == [5] * 40


def test_the_forest_tells_its_error_on_what_it_did_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_TREES", 10)
    rng = np.random.default_rng(0)
    features = rng.integers(0, 2, (40, 5)).astype(float)
    dice = np.column_stack([features[:, 0] / 4, 0.5 + features[:, 0] / 4])
    model, told = replay.forest(features, dice)
    assert model.predict(features) == pytest.approx(dice, abs=0.02)
    assert (
        "error 0.00" in told and "tau 1.00" not in replay.forest(features, rng.random((40, 2)))[1]
    )


def test_without_all_trainings_it_stays_open(
    records: Records, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["replay.py"])
    monkeypatch.setattr(replay, "curves", lambda *_: [])
    replay.main()
    told = capsys.readouterr().out
    assert "0 of 40 networks" in told and "stays open" in told


def test_the_recorded_networks_are_a_table_of_their_own() -> None:
    dice = {name: (0.1, 0.2 + index / 10) for index, name in enumerate("abcd")}
    flops = {name: 10**6 * (index + 1) for index, name in enumerate("abcd")}
    table = replay.Table((1, 2), flops, dice, replay.CostModel(0.0, (1.0, 0.0), (0.0, 0.0)))
    space, own = replay.listed(table, ["b", "d"])
    (hole,) = space.open_holes
    assert hole.options == ("b", "d")
    assert set(own.flops) == {replay.name_of({"network": name}) for name in "bd"}
    assert [*own.dice.values()] == [dice["b"], dice["d"]]
