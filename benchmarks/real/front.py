"""The picture: validation Dice over cost, the candidates beside nnU-Net's width curve."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from standings import Standing

from search.pareto import pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cost = Callable[[Standing], float]
_COLOURS = {
    "conv": ("#4477aa", "convolution"),
    "mamba": ("#bb9922", "Mamba"),
    "tom": ("#ee6677", "ToM"),
    "attention": ("#228833", "attention"),
    "mixed": ("#777777", "two mixers"),
}
_DECODERS = {"sum": "o", "mlp": "^", "concat": "D", "fue": "P"}
_AXES: tuple[tuple[str, Cost], ...] = (
    ("GFLOPs of a patch", lambda one: one.gflops),
    ("latency of a case, in calibration convolutions", lambda one: one.latency),
)


def draw_front(
    curve: Sequence[Standing],
    space: Sequence[Standing],
    kinds: Mapping[str, tuple[str, str]],
    title: str,
    path: Path,
) -> None:
    """Draw FLOPs and latency panels into a PNG file.

    `kinds` gives the mixer and the decoder of a network of the space.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (label, cost) in zip(panels, _AXES, strict=True):
        _draw(panel, curve, space, kinds, cost)
        panel.set_xscale("log")
        panel.set_xlabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("validation Dice, seed 0")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _draw(
    panel: "Axes",
    curve: Sequence[Standing],
    space: Sequence[Standing],
    kinds: Mapping[str, tuple[str, str]],
    cost: Cost,
) -> None:
    unets = sorted((cost(one), one.validation[0]) for one in curve if 0 in one.validation)
    panel.plot(*zip(*unets, strict=True), "k-s", label="nnU-Net's network, narrowed")
    points = [(cost(one), one.validation[0], *kinds[one.network]) for one in space]
    front = [points[index][:2] for index in pareto_front([point[:2] for point in points])]
    if front:
        panel.step(*zip(*front, strict=True), where="post", color="#999999", lw=1, zorder=1)
    for x, y, mixer, decoder in points:
        panel.plot(x, y, _DECODERS[decoder], color=_COLOURS[mixer][0], ms=6, mec="white")
    for colour, name in _COLOURS.values():
        panel.plot([], [], "o", color=colour, label=name)
    for decoder, marker in _DECODERS.items():
        panel.plot([], [], marker, color="#333333", label=f"decoder {decoder}")
