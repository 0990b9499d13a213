"""nnU-Net's U-Net fitted to sizes, with other mixers at its coarse grids, as raw trees."""

from dataclasses import dataclass, replace
from typing import Any

from archspec.network.input_sizes import InputSizes
from archspec.network.stages import fitted
from archspec.spec.bundled import bundled
from archspec.spec.load import load
from archspec.spec.schema import SCHEMA_VERSION, ArchSpec
from archspec.spec.tree import node_at, thawed, walk, with_node
from blocks.mixers import MIXERS
from blocks.mixers.cycle import KIND as CYCLE

FEATURES = 32
"""Channels of the first stage in nnU-Net's plans."""
_STAGES = {2: 8, 3: 6}
_WIDEST = {2: 16, 3: 10}
"""Channels of the widest stage over those of the first: 512 and 320 in nnU-Net's plans."""
_FINE = 2
"""Stages of convolutions, before the first of another mixer."""
CONV = "conv"
_FIELDS: dict[str, dict[str, Any]] = {
    CONV: {"act": "gelu"},
    "mamba": {"directions": 2},
    "attention": {"num_heads": 4, "reduction": "auto"},
}
"""What a mixer has beside its kind, where its defaults are not the usual."""

Tree = dict[str, Any]

_TRAINED_BY_NNUNET = (CONV, "identity", "mamba", "tom")
"""Mixers that nnU-Net's recipe trains, as U-Mamba and SegMamba do; others have that of Primus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What to begin with: the sizes that it is fitted to, and `mixers` for its coarse grids.

    A network has one of them, a space a choice in each stage.
    """

    name: str
    title: str
    sizes: InputSizes
    mixers: tuple[str, ...]
    is_space: bool = False

    @property
    def ndim(self) -> int:
        return len(self.sizes.patch_size or ())

    def spec(self, features: int, mixer: str) -> Tree:
        """Return a spec whose first stage has so many channels.

        Strides, kernels and the number of stages are those that `fitted` finds.

        Raises:
            SpecError: as `fitted`.
        """
        whole = load(self._whole(features, CONV, _STAGES[self.ndim]))
        count = len(self._fitted(whole).encoder.stages)
        return self._fitted_tree(self._whole(features, mixer, count))

    def space(self, features: int) -> Tree:
        """Return a space around the specs of all mixers, each stage with at most its width there.

        Raises:
            SpecError: as `fitted`.
        """
        specs = {mixer: self.spec(features, mixer) for mixer in self.mixers}
        tree = specs[self.mixers[-1]]
        stages = [dict(stage) for stage in tree["encoder"]["stages"]]
        for index, stage in enumerate(stages):
            width = stage["width"]
            stage["width"] = {"choice": [width // 2, width]}
            if index >= _FINE:
                stage["depth"] = {"int": [1, 2]}
            if "ffn" in stage:  # one of the coarse grids, where mixers stand
                written = (one["encoder"]["stages"][index]["mixer"] for one in specs.values())
                stage["mixer"] = {"choice": list(written)}
        training = {**tree["training"], "lr": {"float": [1e-4, 4e-3], "log": True}}
        return {**tree, "encoder": {**tree["encoder"], "stages": stages}, "training": training}

    def recipe(self, mixer: str) -> Tree:
        """Return how a network with the mixer is trained, a space's with a rate of the middle."""
        if self.is_space:
            rest = {"weight_decay": 1e-2, "schedule": "cosine", "warmup": 0.1, "clip": 1.0}
            return {"optimizer": "adamw", "lr": 1e-3, **rest}
        name = "unet" if mixer in _TRAINED_BY_NNUNET else "primus-s"
        return dict(thawed(bundled(name).tree["training"]))

    def _whole(self, features: int, mixer: str, count: int) -> Tree:
        """Return the spec before it is fitted, with so many stages."""
        first = min(_FINE, count - 1) if self.mixers != (CONV,) else count
        stages: list[Tree] = []
        for index in range(count):
            stage: Tree = {"width": features * min(2**index, _WIDEST[self.ndim])}
            if index == 0:
                stage["downsample"] = {"stride": 1}
            if index >= first:
                stage["downsample"] = {**stage.get("downsample", {}), "in_block": False}
                stage["block"] = {"kind": "residual", "norm": "layer"}
                stage["mixer"] = {"kind": mixer, **_FIELDS.get(mixer, {})}
                stage["ffn"] = {"kind": "mlp", "ratio": 2}
            stages.append(stage)
        norm = {"norm": "instance_affine", "act": "leaky_relu"}
        defaults = {
            "downsample": {"kernel_size": 3, "stride": 2, "in_block": True},
            "block": {"kind": "plain", **norm},
            "mixer": {"kind": CONV, "kernel_size": 3, "act": "none"},
        }
        skips = {"kind": "concat", "up": "transpose", "skip_block": "none", "num_convs": 2}
        sizes = self.sizes
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "title": self.title,
            "in_channels": sizes.in_channels or 1,
            "num_classes": sizes.num_classes or 2,
            "patch_size": list(sizes.patch_size or ()),
            "init": "nnunet",
            "encoder": {"defaults": defaults, "stages": stages},
            "decoder": {**skips, **norm, "head": "conv"},
            "deep_supervision": {"heads": max(count - 1, 1)},
            "training": self.recipe(mixer),
        }

    def _fitted(self, spec: ArchSpec) -> ArchSpec:
        spacing = self.sizes.spacing or (1.0,) * self.ndim
        return fitted(spec, replace(self.sizes, spacing=spacing)).spec

    def _fitted_tree(self, tree: Tree) -> Tree:
        """Return the tree with what fitting changes written into it, and nothing more."""
        before = load(tree)
        after = self._fitted(before)
        old, new = before.tree(), after.tree()
        stages = tree["encoder"]["stages"][: len(after.encoder.stages)]
        found = with_node(tree, ("encoder", "stages"), stages)
        for path, value in walk(new):
            is_whole = not isinstance(value, dict) and path[-1:] != ("stages",)
            if not is_whole or isinstance(node_at(new, path[:-1]), list):
                continue
            if node_at(old, path) != value:
                found = with_node(found, path, value)
        return dict(thawed(found))


def mixer_kinds() -> list[str]:
    """Return the kinds that a layout can have at its coarse grids."""
    return [kind for kind in MIXERS.kinds() if kind != CYCLE]
