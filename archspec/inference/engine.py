"""nnU-Net's own reading, preprocessing, sliding windows and export, set up from a model's facts."""

import inspect
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import nnunetv2
import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from archspec.files import replacing
from archspec.inference.images import Case
from archspec.network.segnet import SegNet
from archspec.saved.info import ModelInfo
from blocks.errors import SpecError, reason

OnTile = Callable[[int, int], None]

_CONFIGURATION = "saved"
_WEIGHT = 10
"""Of the middle of a window, where nnU-Net adds logits up."""
_NO_LOGITS = "the network's logits are no finite numbers, or too large for nnU-Net's sum in float16"
_HOMES = {
    "image_reader_writer": "imageio",
    "preprocessor_name": "preprocessing.preprocessors",
    "label_manager": "utilities.label_handling",
    "resampling_fn_data": "preprocessing.resampling",
    "resampling_fn_probabilities": "preprocessing.resampling",
}
"""Below which package nnU-Net looks a name up."""


class Engine:
    """Predict cases one by one, in this process."""

    def __init__(
        self,
        net: SegNet,
        info: ModelInfo,
        *,
        device: torch.device,
        mirroring: bool,
        step_size: float,
    ) -> None:
        said = info.preprocessing
        assert said is not None
        _check_names(info)
        net.decoder.deep_supervision = False
        self.num_channels = info.in_channels
        self.patch_size = info.patch_size
        self.step_size = step_size
        self.device = device
        self.plans = PlansManager(_plans(info))
        self.configuration = self.plans.get_configuration(_CONFIGURATION)
        self.dataset_json = {
            "labels": dict(info.labels or {}),
            "regions_class_order": info.regions_class_order,
            "channel_names": dict(enumerate(said.channel_names or ())),
            "file_ending": said.file_ending,
        }
        self.mirror_axes = said.mirror_axes if mirroring else ()
        self.reader = self.plans.image_reader_writer_class()
        self.preprocessor = self.configuration.preprocessor_class(verbose=False)
        with redirect_stdout(StringIO()):  # on a CPU it reports a changed default
            self.predictor = nnUNetPredictor(
                tile_step_size=step_size,
                use_mirroring=mirroring,
                perform_everything_on_device=device.type == "cuda",
                device=device,
                allow_tqdm=False,
            )
            self.predictor.manual_initialization(
                net,
                self.plans,
                self.configuration,
                None,
                self.dataset_json,
                "none",
                self.mirror_axes or None,
            )

    def predict(self, case: Case, target: Path, on_tile: OnTile) -> None:
        """Write the mask of a case; `on_tile` hears how many forward passes of how many are done.

        Raises:
            SpecError: it cannot be read or written, holds what is no number, or is too large; so
                are its logits.
        """
        with redirect_stdout(StringIO()):  # what is wrong with an image is told in one line
            image, properties = self._read(case)
            try:
                mask = self._mask(case, image, properties, on_tile)
            except torch.OutOfMemoryError:
                raise SpecError(
                    f"{self.device} has too little memory for it", where=case.files[0]
                ) from None
            with replacing(target, ending=case.ending) as partial:
                self.reader.write_seg(mask, str(partial), properties)

    def _read(self, case: Case) -> tuple[Any, dict[str, Any]]:
        try:
            image, properties = self.reader.read_images([str(path) for path in case.files])
        except Exception as error:  # each library has its own
            problem = f"cannot be read: {reason(error)}"
            raise SpecError(problem, where=case.files[0]) from None
        count = image.size - int(np.isfinite(image).sum())
        if count:
            raise SpecError(f"{count:,} voxels are no finite number", where=case.files[0])
        assert len(image) == self.num_channels
        return image, properties

    def _mask(self, case: Case, image: Any, properties: dict[str, Any], on_tile: OnTile) -> Any:
        data, _, properties = self.preprocessor.run_case_npy(
            image, None, properties, self.plans, self.configuration, self.dataset_json
        )
        total, done, largest = self._num_passes(data.shape[1:]), 0, 0.0

        def passed(_net: object, _inputs: object, logits: Tensor) -> None:
            nonlocal done, largest
            done += 1
            found = float(logits.abs().max())
            largest = max(largest, found)
            if not math.isfinite(found):
                raise SpecError(_NO_LOGITS, where=case.files[0])
            on_tile(done, total)

        hook = self.predictor.network.register_forward_hook(passed)
        try:
            logits = self.predictor.predict_sliding_window_return_logits(torch.from_numpy(data))
        except RuntimeError:
            if largest * _WEIGHT > torch.finfo(torch.half).max:  # nnU-Net adds tiles in float16
                raise SpecError(_NO_LOGITS, where=case.files[0]) from None
            raise
        finally:
            hook.remove()
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits.cpu(),
            self.plans,
            self.configuration,
            self.predictor.label_manager,
            properties,
            num_threads_torch=torch.get_num_threads(),
        )

    def _num_passes(self, grid: tuple[int, ...]) -> int:
        """Return how often the network runs: per tile, per slice in 2-D, per mirror image."""
        axes = grid[-len(self.patch_size) :]
        padded = tuple(max(pair) for pair in zip(axes, self.patch_size, strict=True))
        steps = compute_steps_for_sliding_window(padded, self.patch_size, self.step_size)
        slices = math.prod(grid[: len(grid) - len(axes)])
        images: int = slices * 2 ** len(self.mirror_axes)
        return images * math.prod(map(len, steps))


def _plans(info: ModelInfo) -> dict[str, Any]:
    """Return plans of one configuration, with what nnU-Net reads of them to predict."""
    said, schemes = info.preprocessing, info.normalization
    assert said is not None and schemes is not None and info.spacing is not None
    extra = {"scheme", "use_mask"}
    return {
        "transpose_forward": list(said.transpose_forward),
        "transpose_backward": list(said.transpose_backward),
        "image_reader_writer": said.image_reader_writer,
        "label_manager": said.label_manager,
        "foreground_intensity_properties_per_channel": {
            str(index): {key: value for key, value in one.items() if key not in extra}
            for index, one in enumerate(schemes)
        },
        "configurations": {
            _CONFIGURATION: {
                "preprocessor_name": said.preprocessor_name,
                "patch_size": list(info.patch_size),
                "spacing": list(info.spacing),
                "normalization_schemes": [one["scheme"] for one in schemes],
                "use_mask_for_norm": [bool(one.get("use_mask", False)) for one in schemes],
                "resampling_fn_data": said.resampling_fn_data,
                "resampling_fn_data_kwargs": dict(said.resampling_fn_data_kwargs),
                "resampling_fn_probabilities": said.resampling_fn_probabilities,
                "resampling_fn_probabilities_kwargs": dict(said.resampling_fn_probabilities_kwargs),
                # of labels, which there are none of: what comes out is dropped
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1},
                "architecture": {},
            }
        },
    }


def _check_names(info: ModelInfo) -> None:
    """Refuse what this nnU-Net does not have.

    Raises:
        SpecError: see above.
    """
    said, schemes = info.preprocessing, info.normalization
    assert said is not None and schemes is not None
    wanted = [(f"preprocessing.{one}", getattr(said, one), home) for one, home in _HOMES.items()]
    wanted += [
        (f"normalization.{index}.scheme", one["scheme"], "preprocessing.normalization")
        for index, one in enumerate(schemes)
    ]
    for place, name, home in wanted:
        folder = Path(nnunetv2.__path__[0], *home.split("."))
        found = recursive_find_python_class(str(folder), name, f"nnunetv2.{home}")
        resamples = home.endswith("resampling")
        if not (inspect.isfunction(found) if resamples else inspect.isclass(found)):
            raise SpecError(f"this nnU-Net has no {name}", field=place)
        options = getattr(said, f"{place.rpartition('.')[2]}_kwargs") if resamples else {}
        try:
            inspect.signature(found).bind_partial(**options)
        except TypeError as error:
            raise SpecError(f"{name}: {error}", field=f"{place}_kwargs") from None
