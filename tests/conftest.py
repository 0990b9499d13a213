"""Networks to test: every component and every bundled spec, named by the arguments of a test.

A test that takes `mixer`, `decoder`, `ffn`, `block`, `downsample`, `ndim` or `spec_name` runs once
per member, so that a new component is tested with no new test code. One that takes `settings` runs
once per field of every member. `some_spec` is a third of the specs, another one in other files, and
all of them under `long`.
"""

import gc
import os
import pickle
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from filelock import FileLock
from pydantic import ValidationError
from torch import nn

import archspec
from archspec import plan
from archspec.cli.main import main
from archspec.network.plan import Plan
from archspec.spec.bundled import bundled
from archspec.spec.load import load
from archspec.spec.schema import ArchSpec
from blocks.base import ComponentSpec, SpecError
from blocks.decoders import AnyDecoder
from blocks.downsample import AnyDownsample
from blocks.ffn import AnyFFN
from blocks.local import AnyLocal
from blocks.mixers import AnyMixer
from blocks.post import AnyPost
from blocks.registry import classes_in, kind_of
from blocks.skip import AnySkip
from blocks.wrappers import AnyBlock

PATCHES = {2: [16, 32], 3: [16, 32, 16]}

WORDS = ("none", "instance", "instance_affine", "layer", "batch", "group1", "group(2)")
VALUES = (None, False, True, 1, 2, 3, 5, 0.25, 0.5, (1, 3), (3, 1, 1), (2, 1), (1, 2, 1), *WORDS)
"""What a field may be set to, if its class takes it; the words of a Literal come on top."""

SHELL = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
for _name in [name for name in os.environ if name in SHELL or name.startswith("nnUNet_")]:
    del os.environ[_name]  # how the user's shell is set up is no matter of a test

Component = ComponentSpec | None
SpecFactory = Callable[..., ArchSpec]
Cli = Callable[..., tuple[int, str, str]]


def members(annotation: Any) -> tuple[type[ComponentSpec], ...]:
    """Return the classes of component that may stand where this is the annotation."""
    return tuple(classes_in(annotation))


def _label(member: type[ComponentSpec]) -> str:
    kind = member.model_fields.get("kind")
    return member.__name__ if kind is None else str(kind.default)


def _literals(annotation: Any) -> list[Any]:
    inner = [word for part in get_args(annotation) for word in _literals(part)]
    return list(get_args(annotation)) if get_origin(annotation) is Literal else inner


@cache
def settings_of(component: ComponentSpec) -> dict[str, list[ComponentSpec]]:
    """Return, per field, copies of the component that differ from it there, as its class allows."""
    found: dict[str, list[ComponentSpec]] = {}
    for name, field in type(component).model_fields.items():
        if name == "kind":
            continue
        found[name] = []
        words = _literals(field.annotation)
        held = [{"kind": kind_of(one)} for one in classes_in(field.annotation, field.metadata)]
        given = (*VALUES, *words, *((word,) for word in words), tuple(reversed(words)))
        for value in (*given, *held, *((one,) for one in held)):
            try:
                changed = type(component).model_validate({**component.model_dump(), name: value})
            except ValidationError:
                continue
            if changed != component and changed not in found[name]:
                found[name].append(changed)
    return found


def _is_slow_rival(name: str) -> bool:
    """Say whether it is a library's network; one of them, small and convolutional, stands for all.

    Their own tests are in tests/archspec/network/test_libraries.py.
    """
    return "network" in bundled(name).tree and name != "segresnet"


def pytest_collection_finish() -> None:
    """Spare the collections of garbage to come what stays anyway: modules and tests."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    unions = {
        "mixer": AnyMixer,
        "decoder": AnyDecoder,
        "ffn": AnyFFN,
        "block": AnyBlock,
        "downsample": AnyDownsample,
        "local": AnyLocal,
        "post": AnyPost,
        "skip": AnySkip,
    }
    for name, union in unions.items():
        if name in metafunc.fixturenames:
            found = members(union)
            metafunc.parametrize(name, [m() for m in found], ids=[_label(m) for m in found])
    if "component" in metafunc.fixturenames:
        pairs = [(name, member) for name, union in unions.items() for member in members(union)]
        metafunc.parametrize(
            "component",
            [{name: member()} for name, member in pairs],
            ids=[f"{name}-{_label(member)}" for name, member in pairs],
        )
    if "settings" in metafunc.fixturenames:
        cases = [
            pytest.param((name, member(), field, changed), id=f"{name}-{_label(member)}-{field}")
            for name, union in unions.items()
            for member in members(union)
            for field, changed in settings_of(member()).items()
        ]
        metafunc.parametrize("settings", cases)
    if "spec_name" in metafunc.fixturenames:
        metafunc.parametrize(
            "spec_name",
            [
                pytest.param(name, marks=[pytest.mark.long] if _is_slow_rival(name) else [])
                for name in archspec.list_specs()
            ],
        )
    if "some_spec" in metafunc.fixturenames:
        turn = zlib.crc32(metafunc.function.__module__.encode())
        specs = [
            pytest.param(
                name,
                marks=[pytest.mark.long] if (index + turn) % 3 or _is_slow_rival(name) else [],
            )
            for index, name in enumerate(archspec.list_specs())
        ]
        metafunc.parametrize("some_spec", specs)
    if "ndim" in metafunc.fixturenames:
        metafunc.parametrize("ndim", [2, 3], ids=["2d", "3d"])


@pytest.fixture(scope="session")
def nnunet_command() -> Callable[..., None]:
    """Return a function that runs a command of nnU-Net's in one process, with code before it."""
    script = Path(__file__).with_name("nnunet_in_one_process.py")

    def run(command: str, *arguments: str, env: Mapping[str, str], before: str = "") -> None:
        line = [sys.executable, "-P", str(script), before, command, *arguments]
        done = subprocess.run(line, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"

    return run


@pytest.fixture
def hollow_case() -> Callable[[Path], None]:
    """Return a function that writes a preprocessed case that looks whole and holds nothing.

    It takes the case's path without an ending. Blosc2's head says that the file has 24 bytes.
    """
    head = b"\x9e\xa8b2frame\x00\xd2\x00\x00\x00\x18\xcf" + (24).to_bytes(8, "big")

    def write(case: Path) -> None:
        case.with_name(f"{case.name}.b2nd").write_bytes(head)
        case.with_name(f"{case.name}_seg.b2nd").write_bytes(head)
        case.with_name(f"{case.name}.pkl").write_bytes(pickle.dumps({}))

    return write


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that fills a folder by its name in one worker; the others wait for it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each worker has a folder of its own in that of the run

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder = root / name
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                draft = root / f"{name}.draft"
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
                fill(draft)
                draft.rename(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def variants() -> Callable[[ComponentSpec], dict[str, list[ComponentSpec]]]:
    """Return `settings_of`, which a test module cannot import."""
    return settings_of


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Return a function that runs the command line here: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["archspec", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, out, err

    return call


@pytest.fixture(scope="session")
def small_spec() -> SpecFactory:
    """Return a function that declares a small network around the given components."""

    def make(
        ndim: int,
        *,
        mixer: Component = None,
        decoder: Component = None,
        ffn: Component = None,
        block: Component = None,
        downsample: Component = None,
        local: Component = None,
        post: Component = None,
        skip: Component = None,
        strides: Sequence[Any] = (2, 2, 2),
        patch_size: Sequence[int] | None = None,
        heads: int = 1,
        **fields: Any,
    ) -> ArchSpec:
        names = ("mixer", "ffn", "block", "downsample", "local", "post", "skip")
        given = zip(names, (mixer, ffn, block, downsample, local, post, skip), strict=True)
        parts = {name: part.model_dump(mode="json") for name, part in given if part is not None}
        stage = {"width": 16, "mixer": {"kind": "conv"}, **parts}
        down = dict(parts.get("downsample", {}))
        return load(
            {
                "name": "small",
                "patch_size": PATCHES[ndim] if patch_size is None else patch_size,
                "encoder": {
                    "stages": [{**stage, "downsample": {**down, "stride": s}} for s in strides]
                },
                "decoder": {"kind": "sum"} if decoder is None else decoder.model_dump(mode="json"),
                "deep_supervision": {"heads": heads},
                **fields,
            }
        )

    return make


SMALL_RIVALS: dict[str, dict[str, Any]] = {
    "SwinUNETR": {"feature_size": 12},
    "SegResNet": {"init_filters": 8},
    "UNETR": {"feature_size": 4, "hidden_size": 12, "mlp_dim": 16, "num_heads": 2},
    "MedNeXt": {"init_filters": 8, "blocks_down": [1] * 4, "blocks_up": [1] * 4},
    "Primus": {"embed_dim": 48, "eva_depth": 1, "eva_numheads": 4},
}
"""Arguments that make the networks of other libraries small, by class."""


def _small_rival(tree: Any) -> Any:
    network = tree["network"]
    return {**tree, "network": {**network, "args": network["args"] | SMALL_RIVALS[network["name"]]}}


def _thinned(tree: Any) -> Any:
    """Return the tree with an eighth of every width, at most one block per stage.

    Widths are rounded up to multiples of eight, for group norms of eight groups.
    """
    if isinstance(tree, list):
        return [_thinned(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    thin = {key: _thinned(value) for key, value in tree.items()}
    thin |= {k: -(-v // 64) * 8 for k, v in tree.items() if k.endswith("width") and v is not None}
    return thin | ({"depth": min(tree["depth"], 1)} if "depth" in tree else {})


@pytest.fixture(scope="session")
def shrunk() -> Callable[..., Plan]:
    """Return a function that plans a bundled spec at the smallest usual patch, in 2-D or 3-D.

    Large networks are thinned: about an eighth of the widths, one block per stage. Where twice the
    total stride is too little, as for slices that do not divide, the patch is twice that.
    """

    def make(name: str, ndim: int | None = None) -> Plan:
        spec = load(name)
        if spec.network is not None:
            spec = load(_small_rival(spec.tree()))
        elif not spec.encoder.stages:
            spec = load({**spec.tree(), "encoder": {"timm": "test_convnext"}})
        elif plan(spec).skips[-1].channels >= 320:
            spec = load(_thinned(spec.tree()))
        total = plan(spec).total_stride
        if ndim is not None and ndim != len(total):
            total = (max(total),) * ndim
        if spec.network is not None:  # most have no norm over one position, and are large
            return plan(spec, patch_size=(*total[:-1], 2 * total[-1]), exact=True)
        try:
            return plan(spec, patch_size=tuple(2 * step for step in total), exact=True)
        except SpecError:
            return plan(spec, patch_size=tuple(4 * step for step in total))

    return make


@pytest.fixture(scope="session")
def train_step() -> Callable[[nn.Module, torch.Tensor], float]:
    """Return a function that takes one optimiser step on random labels and gives the loss."""

    def step(net: nn.Module, x: torch.Tensor) -> float:
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
        logits = net(x)
        target = torch.randint(logits.shape[1], (x.shape[0], *logits.shape[2:]))
        loss = nn.functional.cross_entropy(logits, target)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step
