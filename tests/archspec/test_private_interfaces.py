"""Private parts of other packages are used where this says, and nowhere else: the next release of
Optuna or nnU-Net that changes them is met in one file each. Tests may, to compare with them.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("archspec", "search", "benchmarks")

USES = {
    # Optuna
    "search/study/storage.py": {
        "_storage",
        "_trial_id",
        "_get_trials",
        "system_attrs",
        "optuna.storages._heartbeat.BaseHeartbeat",
        "_backend",
        "_study_id",
    },
    "archspec/cli/interrupts.py": {"_IGNORED_SIGNALS"},  # of Python
    "search/study/generators.py": {"optuna.samplers._lazy_random_state.LazyRandomState"},
    # what a storage on a server has to override, so that an outage writes nothing twice
    "search/study/bridge.py": {
        "_create_new_trial",
        "_get_prepared_new_trial",
        "_get_trials",
        "_set_trial_param",
        "_trial_id",
        "optuna.storages._rdb.models.TrialModel",
    },
    # nnU-Net: of its trainer, and the method that its own trainers override too
    "archspec/nnunet/loss.py": {"_build_loss", "_do_i_compile", "_get_deep_supervision_scales"},
    "archspec/nnunet/trainers/nnUNetTrainerArchSpec.py": {"_build_loss"},
}
"""By file; `system_attrs` has no underscore, but Optuna says that it is not for users."""

FOREIGN = set().union(*USES.values())


def uses(path: Path) -> Iterator[str]:
    """Yield every name of `FOREIGN` that a file uses, and every private one it imports of others.

    `self._storage` is a file's own attribute, unless the file also asks another object for it.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in FOREIGN:
            if not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                yield node.attr
        elif isinstance(node, ast.keyword | ast.FunctionDef):
            name = node.arg if isinstance(node, ast.keyword) else node.name
            if name in FOREIGN:
                yield str(name)
        elif isinstance(node, ast.Constant) and node.value in FOREIGN:  # getattr, setattr
            yield str(node.value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from _private_imports(node)


def _private_imports(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    for alias in node.names:
        parts = f"{prefix}{alias.name}".split(".")
        if parts[0] in ("optuna", "nnunetv2") and any(part.startswith("_") for part in parts):
            yield ".".join(parts)


def found_in(root: Path) -> dict[str, set[str]]:
    files = [path for package in PACKAGES for path in (root / package).rglob("*.py")]
    found = {path.relative_to(root).as_posix(): set(uses(path)) for path in files}
    return {name: names for name, names in found.items() if names}


def test_private_interfaces_are_used_in_one_file_each() -> None:
    assert found_in(ROOT) == USES


def test_a_use_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "loop.py").write_text(
        "from optuna._hypervolume import compute_hypervolume\n"
        "number = study._storage.get_trial(trial._trial_id)\n"
        "stand_in = Namespace(_do_i_compile=None)\n"
        "own = self._storage\n"
    )
    names = {"optuna._hypervolume.compute_hypervolume", "_storage", "_trial_id", "_do_i_compile"}
    assert found_in(tmp_path) == {"search/loop.py": names}
