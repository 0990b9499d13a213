"""Say how far augmentation may go before it pushes a task's evidence out of the patch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import radians
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class AugmentationLimits:
    """Bound nnU-Net's spatial augmentation for a task whose volume fills the patch.

    `rotation` is the largest angle in degrees, `scaling` the range of nnU-Net's scale (below 1
    objects grow), `foreground` the share of patches centred on a labelled voxel.

    nnU-Net's own are 30 degrees, or 180 in the plane of a patch over three times as long as deep;
    0.7 to 1.4; 0.33. Whatever is drawn, its scaling keeps what lies within 0.7 of the patch around
    its centre, and centring on a labelled voxel keeps what spans at most half of it along each
    axis. A relation over 144 of 192 voxels does neither, and no patch 32 voxels high holds it when
    it is turned by 90 degrees.
    """

    rotation: float
    scaling: tuple[float, float]
    foreground: float = 0.0

    @classmethod
    def of(cls, dataset_json: Mapping[str, Any]) -> Self | None:
        """Return the limits that a phantom's dataset.json states; None in any other dataset."""
        stated = dataset_json.get("archspec", {}).get("augmentation")
        if stated is None:
            return None
        low, high = stated["scaling"]
        return cls(
            rotation=float(stated["rotation"]),
            scaling=(float(low), float(high)),
            foreground=float(stated["foreground"]),
        )

    def tree(self) -> dict[str, object]:
        """Return what dataset.json holds."""
        return {**asdict(self), "scaling": list(self.scaling)}

    def angles(self) -> tuple[float, float]:
        """Return the range of angles in radians."""
        return -radians(self.rotation), radians(self.rotation)
