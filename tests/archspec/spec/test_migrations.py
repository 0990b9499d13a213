"""A spec of any schema that there ever was loads, as the same network."""

from pathlib import Path
from typing import Any

import pytest

from archspec.network.plan import plan
from archspec.spec import migrations, schema
from archspec.spec.find import list_specs, load_tree
from archspec.spec.hashing import arch_hash, trial_hash
from archspec.spec.load import load
from archspec.spec.migrations import MIGRATIONS, upgrade
from archspec.spec.schema import SCHEMA_VERSION
from archspec.spec.yaml_file import Source, parse
from search.space.space import list_spaces

SPECS = sorted((Path(__file__).parents[2] / "golden" / "schema").glob("spec_*.yaml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_of_each_schema_loads_for_ever(path: Path) -> None:
    """The first line of each has the hashes that it had when its schema was the present one."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    spec = load(path)
    assert first.split()[1:] == [arch_hash(spec), trial_hash(spec)]
    assert plan(spec).stages


def test_there_is_one_of_each_schema() -> None:
    assert [path.stem for path in SPECS] == [f"spec_{n + 1}" for n in range(SCHEMA_VERSION)]


def test_there_is_a_migration_from_every_earlier_schema() -> None:
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("name", list_specs())
def test_bundled_specs_say_their_schema(name: str) -> None:
    assert load_tree(name).tree["schema_version"] == SCHEMA_VERSION


def test_bundled_spaces_say_their_schema() -> None:
    root = Path(__file__).parents[3] / "specs" / "search"
    for name in list_spaces():
        tree = parse((root / f"{name}.yaml").read_text(encoding="utf-8"), name).tree
        assert tree["schema_version"] == SCHEMA_VERSION, name


def test_migrations_run_in_order_from_the_version_of_the_spec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def first(tree: dict[str, Any]) -> dict[str, Any]:
        return {**tree, "init": "segformer"}

    def second(tree: dict[str, Any]) -> dict[str, Any]:
        return {**tree, "title": f"was {tree.get('init', 'unset')}"}

    monkeypatch.setattr(migrations, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(migrations, "MIGRATIONS", {1: first, 2: second})
    for version, title in (({}, "was segformer"), ({"schema_version": 1}, "was segformer")):
        assert upgrade(Source("net", {"name": "a", **version})).tree["title"] == title
    assert upgrade(Source("net", {"schema_version": 2})).tree["title"] == "was unset"
    assert "title" not in upgrade(Source("net", {"schema_version": 3})).tree
    assert upgrade(Source("net", {})).tree["schema_version"] == 3


def test_positions_survive_a_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(migrations, "MIGRATIONS", {1: lambda tree: {**tree, "title": "new"}})
    source = upgrade(parse("name: a\npatch_size: [8, 8]\n", "net.yaml"))
    assert str(source.where(("patch_size",))) == "net.yaml:2:1"


def test_the_schema_is_written_into_trees() -> None:
    assert load("unet").tree()["schema_version"] == schema.SCHEMA_VERSION
