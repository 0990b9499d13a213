"""Sources and overrides: names, files, mappings, and what is refused before validation."""

import copy
from pathlib import Path
from typing import Any

import pytest

import archspec
from archspec.network.plan import plan
from archspec.spec.find import list_specs, load_tree
from archspec.spec.load import apply_overrides, load
from blocks.base import SpecError

TEXT = Path(__file__).with_name("net.yaml").read_text(encoding="utf-8")


def write(folder: Path, text: str) -> str:
    path = folder / "net.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def message_of(source: Any, *, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(SpecError) as caught:
        plan(load(source, overrides=overrides))
    message = str(caught.value)
    assert len(message.splitlines()) == len(caught.value.problems)
    return message


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (b"", "net.yaml: empty; it must hold a mapping"),
        (b"# a comment\n", "net.yaml: empty; it must hold a mapping"),
        (b"just words", "net.yaml:1:1  a spec must be a mapping"),
        (b"[1, 2]", "net.yaml:1:1  a spec must be a mapping"),
        (b"null", "net.yaml:1:1  a spec must be a mapping"),
        (b"name: \xff\xfe", "net.yaml: not UTF-8 text"),
        (b"name: a\x00b", "net.yaml: not valid YAML: unacceptable character #x0000"),
        (b"#" * (1 << 20) + b"#", "net.yaml: larger than 1 MiB"),
        (b"a: " + b"[" * 100 + b"]" * 100, "nested too deeply; at most 64 levels"),
        (b"[" * 100_000, "nested too deeply; at most 64 levels"),
        (b"a: &a [*a]", "nested too deeply; at most 64 levels"),
        (b"a: 1\n---\nb: 2", "net.yaml:2:1  not valid YAML: but found another document"),
        (b"name: *nobody", "net.yaml:1:7  not valid YAML: found undefined alias 'nobody'"),
        (b"name: !!python/name:os.system x", "net.yaml:1:7  name: tag"),
        (
            b"name: !thing {a: 1}",
            "net.yaml:1:7  name: tag '!thing' is not used in specs",
        ),
        (b"name: !!int x", "net.yaml:1:7  name: 'x' cannot be read as int"),
        (
            b"name: " + b"9" * 5000,
            "net.yaml:1:7  name: '99999999999999999999' cannot",
        ),
        (b"? [a, b]\n: 1", "net.yaml:1:3  a key must be a word"),
        (b'"a\\nb": 1', "net.yaml:1:1  'a\\nb': unknown key"),
    ],
    ids=range(19),
)
def test_hostile_file(content: bytes, want: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes(content)
    assert want in message_of(path)


def test_alias_bomb(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 12):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]")
    assert "too large; at most 20,000 nodes" in message_of(write(tmp_path, "\n".join(lines)))


def test_unreadable_places(tmp_path: Path) -> None:
    assert message_of(tmp_path) == f"{tmp_path}: not a file; give the .yaml file itself"
    assert message_of(f"{tmp_path}/") == f"{tmp_path}: not a file; give the .yaml file itself"
    missing = tmp_path / "none.yaml"
    assert message_of(missing) == f"{missing}: cannot be read: No such file or directory"
    (tmp_path / "unet.yaml").touch()
    assert message_of(tmp_path / "unte.yaml").endswith("directory; did you mean 'unet.yaml'?")
    assert message_of(str(missing)) == message_of(missing)
    assert "File name too long" in message_of(f"{'x' * 5000}.yaml")
    assert "cannot be read" in message_of("no/such/place")


def test_unknown_bundled_name() -> None:
    message = message_of("mamba-unte")
    assert message.startswith("mamba-unte: not a bundled spec, and not a .yaml file; allowed: ")
    assert message.endswith("did you mean 'mamba-unet'?")
    assert all(name in message for name in list_specs())
    message_of("")
    message_of("x" * 5000)


def test_path_like_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundled = load("small-unet")
    assert load("small-unet.yaml") == bundled
    assert "cannot be read" in message_of("./small-unet")
    assert "cannot be read" in message_of("../specs/small-unet.yaml")
    assert "cannot be read" in message_of(Path("small-unet.yaml"))
    Path("small-unet.yaml").write_text(TEXT)
    assert load("small-unet.yaml").name == "net"
    assert load("small-unet") == bundled
    Path("mine").mkdir()
    Path("mine/net.yaml").write_text(TEXT)
    assert load("mine/net.yaml") == load(Path("mine/net.yaml")) == load("small-unet.yaml")


def test_list_specs() -> None:
    assert "mamba-unet" in list_specs("*mamba*")
    assert list_specs("nothing*") == []
    assert archspec.list_specs() == sorted(archspec.list_specs())


@pytest.mark.parametrize(
    "override",
    ["encoder.stages.0.width=48", "encoder.stages[0].width=48", " encoder.stages.0.width = 48"],
)
def test_override_replaces_one_node(override: str, tmp_path: Path) -> None:
    path = write(tmp_path, TEXT)
    spec = load(path, overrides=[override])
    assert [stage.width for stage in spec.encoder.stages] == [48, 32]
    want = load(path).tree()
    want["encoder"]["stages"][0]["width"] = 48
    assert spec.tree() == want
    assert load(load(path), overrides=[override]) == spec
    assert load(load(path).tree(), overrides=[override]) == spec


def test_override_values_are_yaml(tmp_path: Path) -> None:
    overrides = [
        "training.lr=1e-4",
        "encoder.stages.0.mixer={kind: mamba, d_conv: 3}",
        "patch_size=[64, 64]",
        "encoder.defaults.ffn.ratio=3",
        "deep_supervision.heads=1",
        "title=on",
    ]
    spec = load(write(tmp_path, TEXT), overrides=overrides)
    assert spec.training.lr == 1e-4
    assert spec.patch_size == (64, 64)
    assert spec.title == "on"
    assert spec.tree()["encoder"]["stages"][0]["mixer"]["d_conv"] == 3
    assert {stage["ffn"]["ratio"] for stage in spec.tree()["encoder"]["stages"]} == {3}


@pytest.mark.parametrize(
    ("override", "want"),
    [
        ("encoder.stages.0.width", "must read path=value, e.g. encoder.stages.0.width=32"),
        ("=3", "must read path=value, e.g. encoder.stages.0.width=32"),
        ("encoder.stages.9.width=3", "encoder.stages is a list of 2; 9 is not an index of it"),
        ("encoder.stages.-1.width=3", "encoder.stages is a list of 2; -1 is not an index of it"),
        ("encoder.stages.all.width=3", "encoder.stages is a list of 2; all is not an index of it"),
        ("encoder.stages.\u00b2.width=3", "encoder.stages is a list of 2; \u00b2 is not an index"),
        ("name.first=3", "name is 'net', which has no field 'first'"),
        ("decoder.act.kind=relu", "decoder.act is 'relu', which has no field 'kind'"),
        ("encoder.stages.0.width=wide", "encoder.stages.0.width: must be a valid integer, but is"),
        ("encoder.stages.0.width=", "encoder.stages.0.width: must be a valid integer, but is null"),
        ("encoder.stages.0.wdth=3", "encoder.stages.0.wdth: unknown key; allowed: width"),
        ("encodr.stages.0.width=3", "encodr: unknown key; allowed: "),
        ("training.clp.x=3", "training.clp: unknown key; allowed: "),
        (
            "encoder.stages.1.mixer.kind=mambo",
            "encoder.stages.1.mixer.kind: 'mambo' is not a mixer",
        ),
        (
            "encoder.stages.0.ffn={kind: mlp, ratio: x}",
            "encoder.stages.0.ffn.ratio: must be a valid",
        ),
        ("encoder.defaults.ffn.ratio=x", "encoder.defaults.ffn.ratio: must be a valid number"),
        ("encoder.stages=[]", "encoder.stages: must not be empty"),
    ],
)
def test_wrong_override(override: str, want: str, tmp_path: Path) -> None:
    message = message_of(write(tmp_path, TEXT), overrides=("num_classes=3", override))
    assert message.startswith(f"-s {override}  {want}")


def test_override_that_is_not_yaml(tmp_path: Path) -> None:
    message = message_of(write(tmp_path, TEXT), overrides=("name=[1",))
    assert message.startswith("-s name=[1  name: not valid YAML: ")
    override = "training={lr: 1, lr: 2}"
    message = message_of(write(tmp_path, TEXT), overrides=(override,))
    assert message == f"-s {override}  training.lr: duplicate key; keep one of them"


def test_overrides_leave_the_source_alone(tmp_path: Path) -> None:
    source = load_tree(write(tmp_path, TEXT))
    before = copy.deepcopy(source)
    apply_overrides(source, ["encoder.stages.0.width=48", "training.clip=1"])
    assert source == before


def test_mappings_may_hold_lists_or_tuples() -> None:
    tree = load("small-unet").tree()
    assert load(tree) == load({**tree, "patch_size": tuple(tree["patch_size"])})
    assert message_of({**tree, "nme": 1}).startswith("spec: nme: unknown key; ")
    assert message_of({**tree, 3: 4}).startswith("spec: 3: ")
    assert load(load(tree)) is not None
