"""`draw`, and `describe --draw`: the same drawing, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import archspec

Cli = Callable[..., tuple[int, str, str]]


def test_the_verb_and_describe_write_the_same(cli: Cli, tmp_path: Path) -> None:
    line, svg = ("small-unet", "--patch", "16,16"), archspec.draw("small-unet", patch_size=(16, 16))
    files = tmp_path / "a.svg", tmp_path / "b.svg"
    assert cli("draw", *line, "-o", files[0]) == (0, f"wrote {files[0]}\n", "")
    code, out, err = cli("describe", *line, "--json", "--draw", files[1])
    assert (code, err) == (0, f"wrote {files[1]}\n") and json.loads(out)["name"] == "small-unet"
    assert [file.read_text(encoding="utf-8") for file in files] == [svg.svg()] * 2
    for printed in (cli("draw", *line), cli("draw", *line, "-o", "-")):
        assert printed == (0, svg.svg(), "")
    assert svg._repr_svg_() == svg.svg()


def test_what_is_there_is_kept_and_what_cannot_be_drawn_refused(
    refused: Callable[..., str], cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "net.svg"
    file.write_text("mine", encoding="utf-8")
    refused(("draw", "small-unet", "-o", file), "exists already", "--out, or --force")
    refused(("describe", "small-unet", "--draw", file), "exists already", "--draw, or --force")
    refused(("draw", "small-unet", "-o", tmp_path / "no" / "net.svg"), "does not exist")
    refused(("describe", "unet", "unet", "--draw", file, "--force"), "takes one network")
    refused(("describe", "unet", "--draw", "-"), "printed already", "archspec draw")
    refused(("draw", "smal-unet"), "did you mean 'small-unet'")
    assert file.read_text(encoding="utf-8") == "mine"
    assert cli("draw", "small-unet", "--patch", "16,16", "-o", file, "--force")[0] == 0
    assert file.read_text(encoding="utf-8").startswith("<svg")
