"""Say how far augmentation may go before it pushes a task's evidence out of the patch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import radians
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bound nnU-Net's spatial augmentation for a task whose volume fills the patch.

    `rotation` is the largest angle in degrees, `scaling` the range of nnU-Net's scale (below 1
    objects grow), `foreground` the share of patches centred on a labelled voxel.

    nnU-Net's own settings (30 degrees, or 180 in the plane where the patch is long; 0.7 to 1.4;
    0.33) suit evidence that lies within about 0.7 of the patch around its centre. A relation over
    144 of 192 voxels cannot: turning it by 90 degrees would need a patch 192 high.
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
