"""No function takes more than six parameters where a type says it better, by the syntax tree."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST = 6

COMMAND_LINE = "archspec/cli/"
"""A verb takes one parameter per option: typer reads them so."""
KERNELS = ("blocks/scan/", "archspec/costs/meta_kernels.py")
"""A scan takes one parameter per tensor, and a stand-in for an operator the operator's own."""

LONG = {
    "archspec/nnunet/export.py export_nnunet": "a public door",
    "blocks/layers/conv.py conv": "what PyTorch's convolutions take, by keyword",
    "blocks/layers/fused_attention.py _fused": "a stand-in for an operator, which takes the same",
    "blocks/layers/residual_unit.py ResidualUnit.__init__": "one parameter per part of a block",
    "archspec/nnunet/network.py ArchSpecNet.__init__": "what plans say, by keyword",
    "archspec/inference/predict.py predict": "a public door",
    "archspec/network/segnet.py Stage.__init__": "one parameter per part of a stage",
    "archspec/saved/onnx_scan.py _selective_scan": "a stand-in for an operator",
    "archspec/saved/save.py save": "a public door",
    "archspec/scoring/evaluate.py evaluate": "a public door",
    "search/launch.py run": "a public door",
    "archspec/overfit/train.py overfit": "the budget and the host of one training",
    "search/trials/host.py training_host": "one parameter per option of the verbs that train",
    "search/retrain/retrain.py retrain": "what is trained, how, on which engine, and who is told",
}
"""Those that take more, and why."""


def functions(node: ast.AST, inside: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield the dotted name and the parameters, less self and cls, of every function below."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            name = f"{inside}{getattr(child, 'name', 'lambda')}"
            arguments = child.args
            taken = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
            if isinstance(node, ast.ClassDef) and taken[:1] in (["self"], ["cls"]):
                taken = taken[1:]
            taken += [one.arg for one in arguments.kwonlyargs]
            taken += [one.arg for one in (arguments.vararg, arguments.kwarg) if one is not None]
            yield name, taken
            yield from functions(child, f"{name}.")
        elif isinstance(child, ast.ClassDef):
            yield from functions(child, f"{inside}{child.name}.")
        else:
            yield from functions(child, inside)


def test_parameters_are_counted() -> None:
    text = """
class Net:
    def forward(self, x, /, y, *rest, key=1, **others): ...
    @staticmethod
    def make(a): return lambda u, v: u
async def load(one, *, two):
    def inner(self): ...
"""
    assert dict(functions(ast.parse(text))) == {
        "Net.forward": ["x", "y", "key", "rest", "others"],
        "Net.make": ["a"],
        "Net.make.lambda": ["u", "v"],
        "load": ["one", "two"],
        "load.inner": ["self"],
    }


def test_functions_take_few_parameters() -> None:
    """Where a listed function becomes shorter, its line goes."""
    files = [
        file for room in ("archspec", "blocks", "search") for file in (ROOT / room).rglob("*.py")
    ]
    assert len(files) > 200
    many = {}
    for file in sorted(files):
        path = file.relative_to(ROOT).as_posix()
        if path.startswith((COMMAND_LINE, *KERNELS)):
            continue
        for name, taken in functions(ast.parse(file.read_text(encoding="utf-8"))):
            if len(taken) > MOST:
                many[f"{path} {name}"] = taken
    assert many.keys() == LONG.keys(), {name: many.get(name) for name in many.keys() ^ LONG.keys()}
