"""The command line: bad input gets one clear line and exit code 2, and leaves nothing behind."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from archspec.cli.main import main

Cli = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("width: 4, mixer: {kind: conv}", "widht: 4, mixer: {kind: conv}", (":5:", "widht")),
        ("kind: mamba", "kind: mambba", ("tiny.yaml:6:", "did you mean 'mamba'")),
        ("d_state: 4", "d_state: four", (":6:", "d_state", "integer")),
        ("decoder: {kind: sum}", "decoder: {kind: sum", ("not valid YAML",)),
    ],
)
@pytest.mark.parametrize("verb", ["validate", "describe"])
def test_wrong_specs(
    refused: Refused, tiny: Path, verb: str, old: str, new: str, parts: tuple[str, ...]
) -> None:
    text = tiny.read_text(encoding="utf-8")
    assert old in text
    tiny.write_text(text.replace(old, new), encoding="utf-8")
    refused((verb, tiny), *parts)


@pytest.mark.parametrize("verb", ["validate", "describe"])
def test_a_patch_that_does_not_divide_is_padded(
    cli: Cli, refused: Refused, tiny: Path, verb: str
) -> None:
    text = tiny.read_text(encoding="utf-8").replace("[16, 16, 16]", "[16, 16, 18]")
    tiny.write_text(text, encoding="utf-8")
    code, out, _ = cli(verb, tiny)
    assert code == 0
    padded = "padded to [16, 16, 20]" if verb == "validate" else "16 x 16 x 18 -> 16 x 16 x 20"
    assert padded in out
    wanted = ("tiny.yaml:6:", "nearest", "[16, 16, 16]", "[16, 16, 20]")
    refused((verb, tiny, "--patch", "exact"), *wanted)


def test_wrong_override_points_at_its_text(refused: Refused, tiny: Path) -> None:
    refused(("validate", tiny, "-s", "encoder.stages.0.width=wide"), "-s encoder.stages.0.width")


def test_unknown_spec_names_the_nearest(refused: Refused) -> None:
    refused(("describe", "mamba-unett"), "did you mean 'mamba-unet'")


def test_missing_nnunet_variable(
    refused: Refused, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    before = listing(tmp_path)
    refused(("export", tiny, "--dataset", "901"), "nnUNet_preprocessed")
    out = tmp_path / "run"
    refused(
        ("search", "demo", "--data", "901", "--trials", "1", "--out", out), "nnUNet_preprocessed"
    )
    assert listing(tmp_path) == before


def test_missing_dataset(refused: Refused, tiny: Path, preprocessed: Path, tmp_path: Path) -> None:
    before = listing(tmp_path)
    refused(("export", tiny, "--dataset", "777"), "777", "nnUNetv2_plan_and_preprocess")
    run = tmp_path / "run"
    refused(("search", "demo", "--data", "777", "--trials", "1", "--out", run), "777")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("number", ["901", "1001"])
def test_search_refuses_data_that_are_not_preprocessed(
    refused: Refused, preprocessed: Path, tmp_path: Path, number: str
) -> None:
    preprocessed.rename(preprocessed.with_name(f"Dataset{number}_Blobs"))
    before = listing(tmp_path)
    run = tmp_path / "run"
    arguments = ("search", "demo", "--data", number, "--trials", "1", "--out", run)
    refused(arguments, f"nnUNetv2_preprocess -d {number} -plans_name nnUNetPlans -c 3d_fullres")
    assert listing(tmp_path) == before


def test_existing_outputs_are_kept(
    cli: Cli, refused: Refused, tiny: Path, preprocessed: Path, tmp_path: Path
) -> None:
    code, out, err = cli("export", tiny, "--dataset", "901", "--plans-name", "mine")
    assert code == 0, err
    assert "nnUNetv2_train Dataset901_Blobs 3d_fullres 0 -p mine" in out
    plans = preprocessed / "mine.json"
    text = plans.read_text(encoding="utf-8")
    refused(("export", tiny, "--dataset", "901", "--plans-name", "mine"), "mine", "force")
    assert plans.read_text(encoding="utf-8") == text
    dataset = tmp_path / "Dataset903_Full"
    dataset.mkdir()
    (dataset / "mine.txt").write_text("keep me", encoding="utf-8")
    refused(("phantom", dataset, "--cases", "5"), "--force")
    assert listing(dataset) == ["mine.txt"]


def test_search_refuses_a_folder_that_is_no_run(
    refused: Refused, preprocessed: Path, tmp_path: Path, hollow_case: Callable[[Path], None]
) -> None:
    for case in ("a", "b"):
        hollow_case(preprocessed / "nnUNetPlans_3d_fullres" / case)
    folds = '[{"train": ["a"], "val": ["b"]}]'
    (preprocessed / "splits_final.json").write_text(folds, encoding="utf-8")
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes.txt").touch()
    arguments = ("search", "demo", "--data", "901", "--trials", "1", "--out", out)
    refused(arguments, "not a run")
    refused((*arguments, "--fold", "3"), "--fold 3")
    assert listing(out) == ["notes.txt"]


@pytest.mark.parametrize("verb", [("report",), ("best", "-o", "best.yaml"), ("verdict",)])
def test_report_needs_a_run(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused((verb[0], tmp_path / "nothing", *verb[1:]), "not a run folder")
    assert listing(tmp_path) == []


def test_demo_never_removes_a_folder_that_is_not_its_own(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    refused(("demo", "--out", tmp_path, "--force"), "not a demo's folder")
    assert listing(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("phantom", "OUT/Dataset901_X", "--task", "reech"),
        ("phantom", "OUT/wrong-name"),
        ("phantom", "OUT/Dataset901_X", "--distance", "1"),
        ("phantom", "OUT/Dataset901_X", "--cases", "1"),
        ("describe", "mamba-unet", "--patch", "64,sixty,64"),
        ("describe", "mamba-unet", "--patch", "0,64,64"),
        ("evaluate", "OUT", "OUT"),
    ],
)
def test_other_bad_input(refused: Refused, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    refused(tuple(a.replace("OUT", str(tmp_path)) for a in arguments))
    assert listing(tmp_path) == []


def test_unknown_option_exits_2(cli: Cli) -> None:
    code, _, err = cli("describe", "mamba-unet", "--ptach", "1,2")
    assert code == 2
    assert "--ptach" in err


def test_describe_agrees_with_cost(cli: Cli) -> None:
    import archspec

    code, out, _ = cli("describe", "mamba-unet", "--patch", "32,32,32", "--json")
    assert code == 0
    found = json.loads(out)
    cost = archspec.cost("mamba-unet", patch_size=(32, 32, 32))
    assert (found["params"], found["flops"]) == (cost.params, cost.flops)
    code, out, _ = cli("describe", "mamba-unet", "--patch", "32,32,32")
    assert f"{cost.params:,} parameters" in out
    assert "convention v1" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_list_names_every_bundled_spec(cli: Cli) -> None:
    import archspec

    _, out, _ = cli("list", "--json")
    assert sorted(json.loads(out)) == archspec.list_specs()
    _, out, _ = cli("list")
    listed, found, _ = out.partition("search spaces (archspec search): ")
    names = [line.split()[0] for line in listed.splitlines() if line[0] != " "]
    assert found and names == archspec.list_specs()
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_space_is_told_from_a_spec(cli: Cli, refused: Refused, tiny: Path) -> None:
    code, out, _ = cli("validate", "demo")
    assert code == 0
    assert "5 holes" in out and "encoder.stages.2.mixer: choice ['identity'" in out
    refused(("describe", "demo"), "search space", "archspec validate demo")
    text = tiny.read_text(encoding="utf-8")
    tiny.write_text(text.replace("width: 4, mixer", "width: {choice: [4, 6]}, mixer"), "utf-8")
    assert "1 holes" not in cli("validate", tiny)[1]
    tiny.write_text(text.replace("d_state: 4", "d_state: {choice: [4, x]}"), encoding="utf-8")
    refused(("validate", tiny), "tiny.yaml:6:", "d_state", "integer")
    assert "demo" in cli("list")[1]


def test_help_does_not_import_torch() -> None:
    code = "import sys; sys.argv = ['archspec', '--help']\n" + (
        "from archspec.cli.main import app\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'nnunetv2', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


REFUSED = """
import contextlib, io, json, sys
from archspec.cli.main import main

said = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["archspec", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    said.append((code or 0, out.getvalue(), err.getvalue()))
loaded = [name for name in ("torch", "nnunetv2", "optuna") if name in sys.modules]
print(json.dumps([said, loaded]))
"""


def test_names_are_listed_and_refused_without_torch(tmp_path: Path) -> None:
    """Importing torch and Optuna takes seconds, which a name typed wrong must not."""
    from archspec.spec.find import load_tree, space_tree
    from blocks.base import SpecError

    def refusal(read: Callable[[str], object], name: str) -> str:
        with pytest.raises(SpecError) as caught:
            read(name)
        return f"archspec: {caught.value}\n"

    unknown = refusal(load_tree, "mamba-unett")
    assert refusal(space_tree, "demmo").endswith("; did you mean 'demo'?\n")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [", encoding="utf-8")
    expected = {
        ("describe", "mamba-unett"): unknown,
        ("describe", "small-unet", "mamba-unett", "--json"): unknown,
        ("describe", "no/such.yaml"): refusal(load_tree, "no/such.yaml"),
        ("describe", str(broken)): refusal(load_tree, str(broken)),
        ("describe", "demo"): refusal(load_tree, "demo"),
        ("validate", "mamba-unett"): unknown,
        ("diff", "small-unet", "mamba-unett"): unknown,
        ("diff", "mamba-unett", "small-unet"): unknown,
        ("profile", "mamba-unett"): unknown,
        ("fidelity", "mamba-unett"): unknown,
        ("export", "mamba-unett", "--dataset", "1"): unknown,
        ("overfit", "mamba-unett", "--data", "1"): unknown,
        ("ablate", "mamba-unett", "--dry-run"): unknown,
        ("convert", "x.pth", "--as", "mamba-unett", "-o", "x.safetensors"): unknown,
        ("search", "demmo", "--data", "1"): refusal(space_tree, "demmo"),
        ("search", "no/such.yaml", "--dry-run"): refusal(space_tree, "no/such.yaml"),
    }
    answered = [("list",), ("list", "*mamba*", "--json"), ("fidelity", "--help")]
    words = json.dumps([*expected, *answered])
    line = [sys.executable, "-c", REFUSED, words]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=tmp_path)
    said, loaded = json.loads(done.stdout)
    assert said[: len(expected)] == [[2, "", text] for text in expected.values()]
    assert [(code, err) for code, _, err in said[len(expected) :]] == [(0, "")] * len(answered)
    assert loaded == []


def test_a_path_that_the_terminal_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    folder = os.fsdecode(b"\xe4\xb8\xad")
    out = tmp_path / folder / "Dataset908_Data"
    monkeypatch.setattr(sys, "stdout", terminal)
    options = ["--task", "data", "--level", "4", "--test-cases", "0"]
    monkeypatch.setattr(sys, "argv", ["archspec", "phantom", str(out), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    terminal.seek(0)
    shown = folder.encode("ascii", "backslashreplace").decode()
    assert f"/{shown}/Dataset908_Data: 5 training" in terminal.read()
