"""Mixers per block, and behind a stage: how they are written, planned, built and described."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FixedTrial

import archspec
from archspec.network.plan import plan
from archspec.network.stages import fit_stages
from archspec.spec.hashing import arch_hash
from archspec.spec.load import load
from archspec.spec.yaml_file import dump
from archspec.testing import check_component
from blocks.base import SpecError
from blocks.mixers.attention import AttentionMixerSpec
from blocks.mixers.conv import ConvMixerSpec
from blocks.mixers.cycle import CycleMixerSpec, mixer_of_block
from blocks.mixers.identity import IdentityMixerSpec
from blocks.mixers.mamba import MambaMixerSpec
from blocks.post.mixer import MixerPostSpec
from search.space.control import control_space
from search.space.space import load_space


def network(mixer: Any, *, depth: int = 4, **stage: Any) -> dict[str, Any]:
    return {
        "name": "net",
        "patch_size": [12, 16],
        "encoder": {"stages": [{"width": 8, "depth": depth, "mixer": mixer, **stage}]},
        "decoder": {"kind": "mlp"},
    }


def mixer_of(tree: dict[str, Any], **options: Any) -> Any:
    return load(tree, **options).encoder.stages[0].mixer


def test_a_list_is_a_cycle_over_the_blocks() -> None:
    spec = load(network(["conv", {"kind": "attention", "num_heads": 2}]))
    assert spec.encoder.stages[0].mixer == CycleMixerSpec(
        of=(ConvMixerSpec(), AttentionMixerSpec(num_heads=2))
    )
    net = archspec.build(spec)
    kinds = [type(block.mixer).__name__ for block in net.stages[0].blocks]  # type: ignore[union-attr]
    assert kinds == ["Sequential", "Attention", "Sequential", "Attention"]
    written = load(
        network({"kind": "cycle", "of": ["conv", {"kind": "attention", "num_heads": 2}]})
    )
    assert arch_hash(written) == arch_hash(spec) == arch_hash(load(spec.tree()))
    assert [mixer_of_block(spec.encoder.stages[0].mixer, i).kind for i in range(5)] == [
        "conv", "attention", "conv", "attention", "conv"
    ]  # fmt: skip


def test_a_cycle_of_one_is_that_mixer() -> None:
    """The same weights and logits; a block beyond the list begins again."""
    nets = []
    for mixer in (["attention"], {"kind": "attention"}, ["attention", "attention"]):
        torch.manual_seed(0)
        nets.append(archspec.build(network(mixer)))
    x = torch.randn(1, 1, 12, 16)
    assert torch.equal(nets[0](x), nets[1](x)) and torch.equal(nets[0](x), nets[2](x))


def test_members_take_the_fields_of_the_default_of_their_kind() -> None:
    tree = network(["conv", "mamba", {"kind": "mamba", "d_state": 3}, {"d_conv": 2}])
    tree["encoder"]["defaults"] = {"mixer": {"kind": "mamba", "d_state": 5, "expand": 1}}
    members = mixer_of(tree).of
    assert members[0] == ConvMixerSpec()
    assert members[1] == MambaMixerSpec(d_state=5, expand=1)
    assert members[2] == MambaMixerSpec(d_state=3, expand=1)
    assert members[3] == MambaMixerSpec(d_state=5, expand=1, d_conv=2)
    tree["encoder"]["defaults"] = {"mixer": ["conv", "identity"]}
    del tree["encoder"]["stages"][0]["mixer"]
    assert mixer_of(tree) == CycleMixerSpec(of=(ConvMixerSpec(), IdentityMixerSpec()))
    tree["encoder"]["stages"][0]["mixer"] = ["identity"]
    assert mixer_of(tree).of == (IdentityMixerSpec(),), "a list takes another's place as a whole"


def test_overrides_reach_into_the_list() -> None:
    tree = network(["conv", "mamba"])
    path = "encoder.stages.0.mixer"
    changed = mixer_of(tree, overrides=[f"{path}.of[1].d_state=7", f"{path}.of[0].kind=identity"])
    assert changed.of == (IdentityMixerSpec(), MambaMixerSpec(d_state=7))
    assert mixer_of(tree, overrides=[f"{path}=[mamba, conv]"]).of[0].kind == "mamba"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["conv", "mambba"], "of.1.kind: 'mambba' is not a mixer; allowed: conv, mamba,"),
        (["conv", ["conv"]], "of.1: must be a mapping"),
        (["conv", {"kind": "cycle"}], "of.1.kind: 'cycle' is not a mixer"),
        ([], "of: must not be empty"),
        (
            ["conv", {"kind": "conv", "kernel": 3}],
            "of.1.kernel: unknown key; allowed: kind, kernel_",
        ),
        (["conv", 3], "of.1: must be a mapping, but is 3"),
    ],
)
def test_mistakes_are_placed_where_they_stand(tmp_path: Path, given: Any, line: str) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(dump(network(given)), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load(path)
    (where, found) = str(caught.value).split("  ", 1)
    assert found.startswith(f"encoder.stages.0.mixer.{line}")
    row = int(where.split(":")[-2])
    text = path.read_text(encoding="utf-8").splitlines()[row - 1]
    wanted = {"mambba": "mambba", "unknown key": "kernel: 3", "empty": "mixer: []", "is 3": "3"}
    assert all(part in text for key, part in wanted.items() if key in found)


@pytest.mark.parametrize("field", ["d_stat", "orders"])
def test_what_a_member_has_by_default_is_told_once(field: str) -> None:
    """It is written in the defaults alone; to mend it in the member would make other mistakes."""
    tree = network(["conv", "mamba"])
    wrong = {"d_stat": 8} if field == "d_stat" else {"orders": ["hw", "hv"]}
    tree["encoder"]["defaults"] = {"mixer": {"kind": "mamba", **wrong}}
    with pytest.raises(SpecError) as caught:
        load(tree)
    (found,) = caught.value.problems
    assert found.field.startswith(f"encoder.stages.0.mixer.of.1.{field}")


def test_grids_divide_by_what_all_members_ask_for() -> None:
    reduced = [{"kind": "attention", "reduction": n} for n in ([2, 1], [3, 4])]
    found = plan(load(network([*reduced, "conv"])))
    assert found.total_stride == (2 * 6, 2 * 4)
    assert found.padded_size == (12, 16)
    behind = {"kind": "mixer", "mixer": {"kind": "mamba", "reduction": 5}}
    assert plan(load(network(reduced[0], post=behind))).total_stride == (20, 10)
    automatic = [{"kind": "attention", "reduction": "auto"}, "conv"]
    stage = plan(load(network(automatic, post={"kind": "mixer", "mixer": automatic[0]}))).stages[0]
    assert isinstance(stage.spec.mixer, CycleMixerSpec)
    for one in (stage.spec.mixer.of[0], stage.spec.post.mixer):  # type: ignore[union-attr]
        assert isinstance(one, AttentionMixerSpec) and one.reduction == (3, 4)


def test_what_members_refuse_is_told_of_each() -> None:
    tree = network(["conv", {"kind": "attention", "num_heads": 3}])
    tree["encoder"]["stages"][0]["mixer"].append({"kind": "conv", "kernel_size": 2})
    behind = {"kind": "mixer", "mixer": {"kind": "attention", "num_heads": 5}}
    tree["encoder"]["stages"][0]["post"] = behind
    with pytest.raises(SpecError) as caught:
        plan(load(tree))
    fields = [one.field for one in caught.value.problems]
    stage = "encoder.stages.0"
    assert fields == [
        f"{stage}.mixer.of.1.num_heads",
        f"{stage}.mixer.of.2.kernel_size",
        f"{stage}.post.mixer.num_heads",
    ]
    tree = network(["conv", {"kind": "attention", "reduction": [1, 1, 1]}])
    with pytest.raises(SpecError, match=r"mixer\.of\.1\.reduction: \[1, 1, 1\] has 3 entries"):
        plan(load(tree))


def test_it_is_described() -> None:
    behind = {"kind": "mixer", "mixer": {"kind": "mamba"}}
    tree = network(["conv", "mamba"], post=behind)
    text = str(archspec.describe(tree))
    assert "4 x conv/mamba + mamba" in text or "4 x cycle + mamba" in text
    assert max(map(len, text.splitlines())) <= 80
    assert archspec.describe(network(["conv", "mamba"])).stages[0].mixer == "conv/mamba"


@pytest.mark.parametrize("residual", [True, False])
def test_a_mixer_behind_the_stage(residual: bool) -> None:
    behind = {"kind": "mixer", "mixer": {"kind": "attention"}, "residual": residual}
    net = archspec.build(network({"kind": "conv"}, depth=1, post=behind))
    post = net.stages[0].post
    x = torch.randn(1, 8, 4, 6)
    mixed = post.mix(post.norm(x))  # type: ignore[operator, union-attr]
    assert torch.equal(post(x), x + mixed if residual else mixed)  # type: ignore[operator]
    assert any(key.startswith("stages.0.post.mix.") for key in net.state_dict())


def test_holes_stand_in_lists(tmp_path: Path) -> None:
    """Named by the path in what the list stands for, in the network and in `search.holes`."""
    tree = network([{"choice": ["conv", "tom"]}, {"kind": "mamba", "d_state": {"choice": [2, 4]}}])
    tree["encoder"]["stages"].append({"width": 8})
    tree["search"] = {
        "holes": {
            "encoder.stages.1.mixer": {
                "choice": [["conv", "identity"], {"kind": "attention"}, {"kind": "conv"}]
            }
        }
    }
    path = tmp_path / "space.yaml"
    path.write_text(dump(tree), encoding="utf-8")
    space = load_space(path)
    first = "encoder.stages.0.mixer.of"
    names = {hole.name: hole.options for hole in space.holes()}
    assert names == {
        f"{first}.0": ("conv", "tom"),
        f"{first}.1.d_state": (2, 4),
        "encoder.stages.1.mixer": ("cycle", "attention", "conv"),
    }
    drawn = {f"{first}.0": "tom", f"{first}.1.d_state": 4, "encoder.stages.1.mixer": "cycle"}
    stages = space.draw(FixedTrial(drawn)).spec.encoder.stages
    assert [one.kind for one in stages[0].mixers()] == ["tom", "mamba"]
    assert stages[0].mixers()[1] == MambaMixerSpec(d_state=4)
    assert [one.kind for one in stages[1].mixers()] == ["conv"], "of one block only"
    members = {hole.name: hole.options for hole in control_space(space).holes()}
    assert members["encoder.stages.1.mixer"] == ("cycle", "conv", "identity")


def test_kernels_in_lists_are_fitted() -> None:
    tree = network([{"kind": "conv", "kernel_size": 5}, "identity"])
    tree["encoder"]["stages"] *= 2
    tree["encoder"]["stages"][0]["downsample"] = {"stride": 1}
    fitted = fit_stages(load(tree), spacing=(5.0, 1.0), patch_size=(12, 16))
    (mixer, _) = (stage.mixer for stage in fitted.encoder.stages)
    assert isinstance(mixer, CycleMixerSpec)
    assert mixer.of[0].kernel_size == (1, 5)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "make",
    [
        lambda: CycleMixerSpec(of=(AttentionMixerSpec(reduction=2), ConvMixerSpec())),
        lambda: MixerPostSpec(mixer=AttentionMixerSpec(reduction=2), residual=False),
    ],
)
def test_they_are_components(make: Callable[[], Any]) -> None:
    check_component(make())
