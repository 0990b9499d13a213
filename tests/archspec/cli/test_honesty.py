"""The verbs confirm and ablate on the command line: lists of variants, and wrong input."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]

NET = """\
name: net
patch_size: [16, 16, 16]
encoder:
  stages:
    - {width: 8, mixer: {kind: conv}}
    - {width: 8, mixer: {kind: mamba, d_state: 4}}
decoder: {kind: sum}
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.yaml"
    path.write_text(NET, encoding="utf-8")
    return path


def test_variants_are_listed_without_data(cli: Cli, net: Path) -> None:
    code, out, err = cli("ablate", net, "--dry-run", "--seeds", "2", "--only", "stage*")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == [
        "net",
        "stage 0 mixer conv -> identity",
        "stage 1 mixer mamba -> identity",
    ]
    assert lines[-1] == "8 trainings of 1000 steps with --seeds 2"
    code, out, _ = cli("ablate", net, "--dry-run", "--json", "-s", "decoder.num_blocks=2")
    names = [network["name"] for network in json.loads(out)["networks"]]
    assert names[0] == "net"
    assert "decoder sum -> mlp" in names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ablate", "net.yaml"), "ablate: needs --data (all but with --dry-run)"),
        (("ablate", "no-such-net", "--dry-run"), "no-such-net: not a bundled spec"),
        (("ablate", "net.yaml", "--dry-run", "--only", "stage 7*"), "no variant has such a name"),
        (("confirm", "nowhere"), "nowhere: not a run folder; archspec search --out makes one"),
    ],
)
def test_wrong_input_ends_in_one_line(
    cli: Cli,
    net: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(net.parent)
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(net.parent.iterdir()) == [net], "nothing is written"
