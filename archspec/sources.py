"""A network with its weights, from wherever it stands: a file, a run, a model folder of nnU-Net."""

from dataclasses import dataclass
from pathlib import Path

from archspec.api import create_model
from archspec.network.build import build_plan
from archspec.network.checkpoint import read_checkpoint
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import plan
from archspec.network.segnet import SegNet
from archspec.network.weights import fill
from archspec.nnunet.dataset import find_dataset
from archspec.nnunet.trained import CHECKPOINT, read_trained, said_of
from archspec.saved.info import ModelInfo
from archspec.saved.read import from_pretrained, model_info
from archspec.saved.save import info_of
from archspec.spec.load import SpecLike, load
from blocks.errors import SpecError
from search.report.write import best_trial
from search.retrain.confirm import confirmed_checkpoints
from search.study.record import RECORD, read_settings
from search.study.storage import open_run
from search.trials.checkpoint import CHECKPOINT as TRIAL_CHECKPOINT
from search.trials.checkpoint import is_whole


@dataclass(frozen=True, slots=True)
class Model:
    """A network with its weights, what is known of it, and where it came from in words."""

    net: SegNet
    info: ModelInfo
    origin: str


def of_saved(file: Path) -> Model:
    """Return the network of a file or folder of `archspec.save`.

    Raises:
        SpecError: as `from_pretrained`.
    """
    return Model(from_pretrained(file), model_info(file), str(file))


def of_spec(spec: SpecLike, weights: Path, sizes: InputSizes) -> Model:
    """Return the spec's network with weights from a file, as `create_model` takes them.

    Raises:
        SpecError: as `create_model`.
    """
    net = create_model(
        spec,
        in_channels=sizes.in_channels,
        num_classes=sizes.num_classes,
        patch_size=sizes.patch_size,
        weights=weights,
    )
    return Model(net, info_of(net), f"{net.spec_name} with {weights}")


def of_trained(folder: Path, *, fold: str | None = None, checkpoint: str = CHECKPOINT) -> Model:
    """Return the network of a model folder of nnU-Net.

    Raises:
        SpecError: as `read_trained`.
    """
    found = read_trained(folder, fold=fold, checkpoint=checkpoint)
    try:
        info = info_of(found.net, **said_of(found.dataset, found.mirror_axes))
    except SpecError as error:
        raise error.at(folder) from None
    return Model(found.net, info, str(folder))


def of_run(
    folder: Path,
    *,
    trial: int | None = None,
    confirmed: bool = False,
    plans_name: str = "nnUNetPlans",
) -> Model:
    """Return the network of a trial, with the weights of its last checkpoint.

    By default it is the trial with the best validation Dice; `confirmed` takes the weights of its
    first training by `archspec confirm`. The sizes are those of the run's dataset, whose plans have
    to be there.

    Raises:
        SpecError: no run, no such trial, no whole checkpoint of it, or no dataset.
    """
    _, record = open_run(folder)
    number = best_trial(folder).number if trial is None else trial
    own = folder / "trials" / f"{number:04d}"
    if not (own / "spec.yaml").is_file():
        raise SpecError(f"has no trial {number}", where=folder)
    spec = load(own / "spec.yaml")
    search = read_settings(folder / RECORD, {**record.settings, "stopper": "none"})
    dataset = find_dataset(
        record.dataset, configuration=record.configuration, plans_name=plans_name
    ).with_patch(search.given_patch)
    file = own / TRIAL_CHECKPOINT
    if confirmed:
        found = confirmed_checkpoints(folder, spec)
        if not found:
            raise SpecError(
                f"trial {number} has no confirmed training with a checkpoint",
                where=folder,
                suggestion="archspec confirm trains the front again",
            )
        file = found[0]
    if not is_whole(file):
        raise SpecError("no such checkpoint, or not a whole one", where=file)
    net = build_plan(plan(spec, dataset.sizes))
    try:
        fill(net, read_checkpoint(file))
    except SpecError as error:
        raise error.at(file) from None
    return Model(net, info_of(net, **said_of(dataset)), f"trial {number} of {folder}")
