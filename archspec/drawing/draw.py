"""Draw a network: a spec or a plan -> one SVG."""

import hashlib
from dataclasses import dataclass
from xml.sax.saxutils import escape

from archspec.costs.flops import Cost, cost_plan
from archspec.drawing.colours import ROOT, style
from archspec.drawing.content import content_of
from archspec.drawing.layout import WIDTH, lay_out
from archspec.drawing.shapes import Box, Shape
from archspec.network.input_sizes import InputSizes
from archspec.network.plan import Plan
from archspec.network.resolve import resolve
from archspec.spec.load import SpecLike
from blocks.base import Grid
from blocks.errors import printable

_NAMESPACE = "http://www.w3.org/2000/svg"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture of one network; `description` says it in words. A notebook shows it."""

    name: str
    description: str
    width: float
    height: float
    shapes: tuple[Shape, ...]

    def svg(self) -> str:
        """Return an SVG that stands alone.

        It is light or dark as the reader's system is, also in an <img>.
        """
        parts = [escape(printable(self.name)), escape(self.description)]
        page = Box(0, 0, self.width, self.height, "page")
        body = [f"<style>{style()}</style>", *(shape.svg() for shape in (page, *self.shapes))]
        mark = hashlib.sha256("\n".join([*parts, *body]).encode()).hexdigest()[:10]
        size = f"{self.width:.0f}", f"{self.height:.0f}"
        return "\n".join(
            [
                f'<svg xmlns="{_NAMESPACE}" class="{ROOT}" width="{size[0]}" '
                f'height="{size[1]}" viewBox="0 0 {size[0]} {size[1]}" role="img" '
                f'aria-labelledby="t{mark} d{mark}">',
                f'<title id="t{mark}">{parts[0]}</title>',
                f'<desc id="d{mark}">{parts[1]}</desc>',
                *body,
                "</svg>\n",
            ]
        )

    def inline(self) -> str:
        """Return the same for the text of an HTML page, which knows the namespace."""
        return self.svg().replace(f' xmlns="{_NAMESPACE}"', "")

    def _repr_svg_(self) -> str:
        return self.svg()


def draw(
    spec: SpecLike,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    patch_size: Grid | None = None,
) -> Drawing:
    """Draw the network that `build` would make, without building it.

    Raises:
        SpecError: the spec is wrong, or does not fit the sizes.
    """
    sizes = InputSizes(in_channels=in_channels, num_classes=num_classes, patch_size=patch_size)
    return draw_plan(resolve(spec, sizes))


def draw_plan(planned: Plan, cost: Cost | None = None) -> Drawing:
    """Draw a planned network; its cost is counted where it is not given."""
    content = content_of(planned, cost_plan(planned) if cost is None else cost)
    shapes, height = lay_out(content)
    return Drawing(content.name, content.description, WIDTH, height, tuple(shapes))
