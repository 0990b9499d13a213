"""What newcomers typed: what each verb makes of wrong input, and options that need no network."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


def test_changing_a_kind_names_the_remedy(cli: Cli, refused: Refused, tiny: Path) -> None:
    override = "encoder.stages.1.mixer.kind=conv"
    refused(
        ("validate", tiny, "-s", override),
        f"-s {override}  encoder.stages.1.mixer.d_state: unknown key",
        f"({tiny}:6:",
        "-s 'encoder.stages.1.mixer={kind: conv}'",
    )
    assert cli("validate", tiny, "-s", "encoder.stages.1.mixer={kind: conv}")[0] == 0


def test_changing_the_optimizer_names_the_remedy(cli: Cli, refused: Refused, tiny: Path) -> None:
    text = tiny.read_text(encoding="utf-8")
    tiny.write_text(f"{text}training: {{optimizer: adam, betas: [0.9, 0.98]}}\n", encoding="utf-8")
    arguments = ("validate", tiny, "-s", "training.optimizer=sgd")
    refused(
        arguments,
        "archspec: -s training.optimizer=sgd  training.betas: must be left out with optimizer sgd, "
        f"but is [0.9, 0.98] ({tiny}:8:",
        "); add -s training.betas=null\n",
    )
    assert cli(*arguments, "-s", "training.betas=null")[0] == 0
    tiny.write_text(f"{text}training: {{optimizer: sgd, momentum: 0.9}}\n", encoding="utf-8")
    arguments = ("validate", tiny, "-s", "training.optimizer=adam")
    refused(arguments, "); add -s training.momentum=null\n")
    assert cli(*arguments, "-s", "training.momentum=null")[0] == 0


@pytest.mark.parametrize(
    "verb", [("validate",), ("describe",), ("profile",), ("diff", "small-unet")]
)
def test_a_patch_that_does_not_fit_is_named(
    refused: Refused, tiny: Path, verb: tuple[str, ...]
) -> None:
    exact = ("-s", "patch_size=[16, 16, 18]", "--patch", "exact")
    if verb[0] != "diff":  # which compares at the first one's patch
        refused((*verb, tiny, *exact), "archspec: -s patch_size=[16, 16, 18]", "must divide")
    refused((*verb, tiny, "--patch", "64"), "archspec: --patch 64  patch_size: must be 2 or 3")


@pytest.mark.parametrize("verb", ["describe", "profile", "fidelity", "diff", "export"])
def test_a_space_is_no_network(refused: Refused, tiny: Path, verb: str) -> None:
    more = {"diff": ["small-unet"], "export": ["--dataset", "901"]}.get(verb, [])
    refused((verb, "demo", *more), "demo: a search space, not one network", "archspec search")
    text = tiny.read_text(encoding="utf-8")
    tiny.write_text(text.replace("width: 4, mixer", "width: {choice: [4, 6]}, mixer"), "utf-8")
    refused((verb, tiny, *more), f"{tiny}: a search space, not one network")


def test_diff_costs_an_override(cli: Cli, tiny: Path) -> None:
    arguments = ("-s", "encoder.stages.0.width=8", "--patch", "32,32,32", "--json")
    code, out, _ = cli("diff", tiny, tiny, *arguments)
    assert code == 0
    found = json.loads(out)
    assert found["input"] == [1, 1, 32, 32, 32]
    assert [change["paths"] for change in found["differences"]] == [["encoder.stages.0.width"]]
    assert found["params"][1] - found["params"][0] == found["differences"][0]["params"] > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a file"),
        (b"", "empty"),
        (bytes(range(256)), "not UTF-8"),
        (b"name: caf\xe9\n", "not UTF-8"),
        (b"\x00\x01\x02", "not valid YAML"),
        (b"name: tiny\n\tpatch_size: [16, 16, 16]\n", "bad.yaml:2:1  not valid YAML"),
        (b"just words\n", "must be a mapping"),
    ],
)
@pytest.mark.parametrize("verb", ["describe", "validate"])
def test_files_that_are_no_specs(
    refused: Refused, tmp_path: Path, content: bytes | None, message: str, verb: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    refused((verb, path), str(path), message)


def test_version_needs_no_torch() -> None:
    from importlib.metadata import version

    code = (
        "import sys; sys.argv = ['archspec', '--version']\n"
        "from archspec.cli.main import app\n"
        "try:\n    app()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"archspec-seg {version('archspec-seg')}\n"


@pytest.mark.parametrize("content", [b"junk", b"\x80\x02K\x17.", b"", b"PK\x03\x04", b"17"])
def test_a_checkpoint_that_is_none(refused: Refused, tmp_path: Path, content: bytes) -> None:
    junk, out = tmp_path / "junk.pth", tmp_path / "out.safetensors"
    junk.write_bytes(content)
    line = refused(("convert", junk, "--as", "segformer3d", "-o", out), str(junk))
    assert not line.strip().rpartition(": ")[2].isdigit(), line
    assert [path.name for path in tmp_path.iterdir()] == ["junk.pth"]


def test_describe_lists_kinds_of_operations(cli: Cli) -> None:
    code, out, _ = cli("describe", "segformer3d", "--kinds")
    assert code == 0
    table = out[out.index("GMAC of segformer3d") :].splitlines()
    assert table[0].split()[3:] == ["conv", "linear", "attention"]
    assert all(len(line) <= 80 for line in table)
    found = json.loads(cli("describe", "segformer3d", "--json")[1])
    parts = [*found["stages"], found["decoder"]]
    for kind, whole in found["by_kind"].items():
        assert sum(part["by_kind"][kind] for part in parts) == whole
    assert f"{found['stages'][0]['by_kind']['attention'] / 1e9:.3f}" in table[1]


SHARE = ["params", "macs", "scan_flops", "by_kind", "saved_bytes"]
MEMORY = ["total", "parameters", "gradients", "optimizer", "saved", "transient"]
KEYS = {
    "": [
        *(
            "name",
            "input",
            "padded",
            "num_classes",
            "convention",
            "params",
            "macs",
            "scan_flops",
            "flops",
        ),
        *("by_kind", "training", "stages", "decoder", "notes", "fit"),
    ],
    "by_kind": ["conv", "transposed_conv", "linear", "causal_conv1d", "attention", "scan"],
    "training": ["batch", "optimizer", "float32", "amp"],
    "training.float32": MEMORY,
    "training.amp": MEMORY,
    "stages.0": ["stage", "mixer", "depth", "width", "grid", *SHARE],
    "decoder": ["kind", "outputs", *SHARE],
    "fit": [
        *("name", "batch", "patch_size", "needed", "available", "batch_that_fits"),
        *("patch_that_fits", "fits"),
    ],
}
DIFF_KEYS = {
    "": ["a", "b", "input", "convention", "params", "macs", "scan_flops", "differences"],
    "differences.0": ["paths", "before", "after", "params", "macs"],
}


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (("describe", "TINY", "--gpu-memory", "8GB", "--json"), KEYS),
        (("diff", "TINY", "TINY", "-s", "encoder.stages.0.width=8", "--json"), DIFF_KEYS),
    ],
)
def test_keys_of_json_are_stable(
    cli: Cli, tiny: Path, arguments: tuple[str, ...], keys: dict[str, list[str]]
) -> None:
    """Scripts read these: a key may be added here, none may go."""
    code, out, _ = cli(*(str(tiny) if word == "TINY" else word for word in arguments))
    assert code == 0
    found = json.loads(out)
    for path, wanted in keys.items():
        node = found
        for part in path.split(".") if path else ():
            node = node[int(part)] if part.isdigit() else node[part]
        assert list(node) == wanted, path
