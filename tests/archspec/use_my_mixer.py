"""Use the mixer of an installed package in every way there is; run by test_my_mixer.py."""

import contextlib
import io
import json
import sys
from pathlib import Path

import torch
from my_mixer import StripMixerSpec

import archspec
from archspec.cli.main import main
from archspec.nnunet import ArchSpecNet
from archspec.spec.plugins import broken, installed
from archspec.testing import check_component
from search.space.space import load_space

preprocessed, example = Path(sys.argv[1]), Path(sys.argv[2])
check_component(StripMixerSpec)
assert "strip" in archspec.list_components("mixer")
assert installed() == ["mixer 'strip' of archspec-my-mixer 0.1.0"]
(line,) = broken()
assert line.startswith("archspec.mixers 'gone' of archspec-broken 0.3: No module named 'gone'"), (
    line
)


def cli(*arguments: object) -> str:
    sys.argv, out = ["archspec", *map(str, arguments)], io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            main()
    except SystemExit as ended:
        assert not ended.code, ended.code
    return out.getvalue()


assert "1 x strip" in cli("describe", example / "net.yaml")
assert "strip" in cli("validate", example / "space.yaml")
assert len(load_space(example / "space.yaml").holes()) == 3
cli("export", example / "net.yaml", "--dataset", "901")
plans = json.loads((preprocessed / "archspec_strip-unet.json").read_text())
arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
assert arguments["packages"] == {"archspec-my-mixer": "0.1.0"}
net = ArchSpecNet(1, 3, **arguments)
assert net(torch.zeros(1, 1, 20, 16, 18)).shape[2:] == (20, 16, 18)
