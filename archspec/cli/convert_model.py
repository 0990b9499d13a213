"""The verb that makes one file of a network and its weights: convert-model."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archspec.cli.options import MAX_COUNT, PlansName
from archspec.cli.specs import Overrides, known, patch_sizes
from blocks.base import MAX_WIDTH
from blocks.errors import SpecError, argument

if TYPE_CHECKING:
    from archspec.sources import Model

_TARGETS = ("safetensors", "onnx", "pt2")
_OF = {
    "a spec": ("weights", "overrides", "in_channels", "num_classes", "patch"),
    "a run": ("trial", "confirmed", "plans"),
    "a model folder of nnU-Net": ("fold", "checkpoint"),
    "a saved network": (),
}
"""Which options go with which source."""


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command("convert-model")(convert_model)


def convert_model(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="A spec (with --weights), a run folder, a model folder of nnU-Net, or what this "
            "verb wrote."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="The file to write; without an ending a folder for Hugging Face.",
        ),
    ],
    to: Annotated[
        str, typer.Option(help="What to write: safetensors, onnx, pt2.", metavar="TARGET")
    ] = "safetensors",
    half: Annotated[
        bool, typer.Option("--half", help="Compute in float16 (onnx), but for scans.")
    ] = False,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the spec: .safetensors, .pth.")
    ] = None,
    overrides: Overrides = None,
    in_channels: Annotated[int | None, typer.Option(min=1, max=MAX_WIDTH)] = None,
    num_classes: Annotated[int | None, typer.Option(min=1, max=MAX_WIDTH)] = None,
    patch: Annotated[str | None, typer.Option(help="Patch size of the spec: 96,96,96.")] = None,
    trial: Annotated[
        int | None, typer.Option(min=0, max=MAX_COUNT, help="Trial of the run. Default: the best.")
    ] = None,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="Take the trial's training by archspec confirm.")
    ] = False,
    plans: PlansName = "nnUNetPlans",
    fold: Annotated[
        str | None, typer.Option(help="Fold of the model folder. Default: the only one.")
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="Checkpoint of the fold.")
    ] = "checkpoint_final.pth",
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Write a trained network as one file that holds its spec and what is known of its inputs.

    safetensors is for archspec.from_pretrained; onnx for onnxruntime, scans included; pt2 for
    torch.export.load, by itself where the network has no scan. The last two take any batch of
    patches of the network's own size.
    """
    kind = _kind(source)
    _check_options(context, kind)
    _check_out(out, to, half=half, force=force)
    if kind == "a spec":
        known(source)
        if weights is None:
            raise SpecError("a spec has no weights", where=source, suggestion="give `weights`")
        from archspec.network.input_sizes import InputSizes
        from archspec.sources import of_spec
        from archspec.spec.load import load

        sizes = InputSizes(
            in_channels=in_channels, num_classes=num_classes, patch_size=patch_sizes(patch)
        )
        spec = load(source, overrides=overrides) if overrides else source
        found = of_spec(spec, weights, sizes)
    else:
        from archspec.sources import of_run, of_saved, of_trained

        path = Path(source)
        if kind == "a run":
            found = of_run(path, trial=trial, confirmed=confirmed, plans_name=plans)
        elif kind == "a saved network":
            found = of_saved(path)
        else:
            found = of_trained(path, fold=fold, checkpoint=checkpoint)
    needs = _write(found, out, to, half=half, force=force)
    size = sum(value.numel() for value in found.net.parameters())
    print(f"wrote {out}: {found.origin}, {size:,} parameters")
    print(found.info)
    if needs:
        print(textwrap.fill(needs, 80, subsequent_indent="  "))


def _kind(source: str) -> str:
    """Say what the source is; a folder that is none of these is refused.

    Raises:
        SpecError: see above.
    """
    path = Path(source)
    if path.suffix == ".safetensors" or (path / "config.json").is_file():
        return "a saved network"
    if not path.is_dir():
        return "a spec"
    if (path / "run.json").is_file():
        return "a run"
    if (path / "plans.json").is_file() and (path / "dataset.json").is_file():
        return "a model folder of nnU-Net"
    raise SpecError(
        "neither a run (run.json) nor a model folder of nnU-Net (plans.json, dataset.json) nor a "
        "saved network (config.json)",
        where=source,
    )


def _check_options(context: typer.Context, kind: str) -> None:
    """Refuse options of another source, which would do nothing."""
    for owner, names in _OF.items():
        for name in names:
            source = context.get_parameter_source(name)
            if owner != kind and source is not None and source.name == "COMMANDLINE":
                raise SpecError(f"`{name}` is for {owner}, but the source is {kind}")


def _check_out(out: Path, to: str, *, half: bool, force: bool) -> None:
    """Refuse, before the work, what could not be written."""
    if to not in _TARGETS:
        from archspec.spec.words import did_you_mean

        raise SpecError(
            "not a target",
            where=argument("to", to),
            allowed=", ".join(_TARGETS),
            suggestion=did_you_mean(to, _TARGETS),
        )
    if half and to != "onnx":
        raise SpecError(f"`half` is for onnx, but the target is {to}")
    if to == "onnx":
        from archspec.saved.onnx import check_onnx

        check_onnx(out, force=force)
    elif to == "pt2":
        from archspec.saved.pt2 import check_file

        check_file(out, ".pt2", force=force)
    else:
        from archspec.saved.save import check_target

        check_target(out, force=force)


def _write(found: "Model", out: Path, to: str, *, half: bool, force: bool) -> str:
    """Write the network; return what is needed to load it, where that is worth a word."""
    if to == "onnx":
        from archspec.saved.onnx import write_onnx

        return write_onnx(found.net, found.info, out, half=half, force=force).needs
    if to == "pt2":
        from archspec.saved.pt2 import write_pt2

        return write_pt2(found.net, found.info, out, force=force).needs
    from archspec.saved.save import write

    write(found.net, found.info, out, force=force)
    return ""
