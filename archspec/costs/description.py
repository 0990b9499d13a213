"""What a network is and costs: data, page and JSON; several networks side by side."""

import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from archspec.costs.fit import Fit
from archspec.costs.flops import CONVENTION
from archspec.costs.memory import Memory
from archspec.spec.training import Optimizer
from archspec.text import table
from blocks.base import Grid

MIB, GIB = 2**20, 2**30
_NOT_COUNTED = "Norms, activations and interpolation are not counted. FLOPs are not speed."


@dataclass(frozen=True, slots=True)
class Share:
    """What one part costs; `saved_bytes` of it are kept for backward in float32."""

    params: int
    macs: int
    scan_flops: int
    by_kind: dict[str, int]
    saved_bytes: int


@dataclass(frozen=True, slots=True)
class StagePart:
    """One stage of the encoder, and the shape behind it."""

    stage: int
    mixer: str
    depth: int
    width: int
    grid: Grid
    share: Share


@dataclass(frozen=True, slots=True)
class EncoderPart:
    """A model of timm that stands in place of stages, and the skips behind it, fine to coarse."""

    timm: str
    widths: tuple[int, ...]
    grids: tuple[Grid, ...]
    share: Share


@dataclass(frozen=True, slots=True)
class DecoderPart:
    """The decoder, or a library's network by its class, and the grids of the outputs."""

    kind: str
    outputs: tuple[Grid, ...]
    share: Share


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """The memory of one training step, an estimate."""

    batch: int
    optimizer: Optimizer
    float32: Memory
    amp: Memory


@dataclass(frozen=True, slots=True)
class Description:
    """One network: costs of one forward pass at batch 1 (`input` has it), memory of training.

    The network computes on `padded`, which is the patch where that suits it.
    `by_kind` is that of `Cost`; `fit` is there if a size of GPU memory was asked about.
    """

    name: str
    input: tuple[int, ...]
    padded: tuple[int, ...]
    num_classes: int
    params: int
    macs: int
    scan_flops: int
    by_kind: dict[str, int]
    training: TrainingStep
    stages: tuple[StagePart, ...]
    decoder: DecoderPart
    notes: tuple[str, ...]
    fit: Fit | None = None
    encoder: EncoderPart | None = None

    @property
    def flops(self) -> int:
        return 2 * self.macs + self.scan_flops

    @property
    def fits(self) -> bool:
        """Whether training fits; True if no size was asked about."""
        return self.fit is None or self.fit.fits

    def __str__(self) -> str:
        return self.text()

    def text(self, *, kinds: bool = False) -> str:
        """Return a page of at most 80 columns, with `kinds` a second table; what fits is last."""
        rows = [
            (
                f"stage {part.stage}",
                f"{part.depth} x {part.mixer}",
                str(part.width),
                "x".join(str(size) for size in part.grid),
                *self._numbers(part.share),
            )
            for part in self.stages
        ]
        if self.encoder is not None:
            name, kind, numbers = "encoder", self.encoder.timm, self._numbers(self.encoder.share)
            for width, grid in zip(self.encoder.widths, self.encoder.grids, strict=True):
                rows.append((name, kind, str(width), "x".join(map(str, grid)), *numbers))
                name, kind, numbers = "", "", ("", "", "", "")  # once, for all of its skips
        outputs = f"{len(self.decoder.outputs)} output{'s' * (len(self.decoder.outputs) > 1)}"
        last = self._last_row
        rows.append((last, self.decoder.kind, "", outputs, *self._numbers(self.decoder.share)))
        head = ("", "blocks", "width", "grid", "params", "GMAC", "scan GF", "saved")
        counts = ", ".join(f"{kind} {_giga(self.by_kind[kind])}" for kind in self._kinds())
        lines = [
            f"{self.name}: input {_input(self)}, {self.num_classes} classes",
            *table([head, *rows], left=2),
            f"total: {self.params:,} parameters",
            f"{_giga(self.flops)} GFLOP = 2 x {_giga(self.macs)} GMAC + "
            f"{_giga(self.scan_flops)} scan GFLOP ({CONVENTION})",
            f"GMAC: {counts}",
            *_memory_lines(self.training),
            _NOT_COUNTED,
        ]
        for note in self.notes:
            lines += textwrap.wrap(f"note: {note}", 80, subsequent_indent="  ")
        return "\n".join([*lines, *_appended((self,), kinds=kinds)])

    def kinds_text(self) -> str:
        """Return a table of at most 80 columns: GMAC by stage and kind of operation, shares."""
        kinds = self._kinds()
        parts = [(f"stage {part.stage}", part.share) for part in self.stages]
        parts += [] if self.encoder is None else [("encoder", self.encoder.share)]
        rows = [(f"GMAC of {self.name}", *kinds)]
        for name, share in [*parts, (self._last_row, self.decoder.share)]:
            counts = (share.by_kind[kind] for kind in kinds)
            rows.append((name, *(_giga(count) if count else "" for count in counts)))
        whole = max(1, self.macs)
        rows.append(("of all", *(f"{self.by_kind[kind] / whole:.1%}" for kind in kinds)))
        return "\n".join(table(rows))

    def to_json(self) -> dict[str, Any]:
        """Return what `archspec describe --json` prints."""
        training = self.training
        stages = [
            {
                "stage": part.stage,
                "mixer": part.mixer,
                "depth": part.depth,
                "width": part.width,
                "grid": list(part.grid),
                **asdict(part.share),
            }
            for part in self.stages
        ]
        return {
            "name": self.name,
            "input": list(self.input),
            "padded": list(self.padded),
            "num_classes": self.num_classes,
            "convention": CONVENTION,
            "params": self.params,
            "macs": self.macs,
            "scan_flops": self.scan_flops,
            "flops": self.flops,
            "by_kind": dict(self.by_kind),
            "training": {
                "batch": training.batch,
                "optimizer": training.optimizer,
                "float32": _memory_json(training.float32),
                "amp": _memory_json(training.amp),
            },
            "stages": stages,
            **({} if self.encoder is None else {"encoder": _encoder_json(self.encoder)}),
            "decoder": {
                "kind": self.decoder.kind,
                "outputs": [list(grid) for grid in self.decoder.outputs],
                **asdict(self.decoder.share),
            },
            "notes": list(self.notes),
            **({} if self.fit is None else {"fit": self.fit.to_json()}),
        }

    @property
    def _last_row(self) -> str:
        """Return what the part behind the stages is; a library's network has none before it."""
        return "decoder" if self.stages or self.encoder else "network"

    def _kinds(self) -> list[str]:
        return [kind for kind, count in self.by_kind.items() if count and kind != "scan"]

    def _numbers(self, share: Share) -> tuple[str, str, str, str]:
        return (
            f"{share.params:,}",
            _giga(share.macs),
            _giga(share.scan_flops) if share.scan_flops else "",
            f"{share.saved_bytes / max(1, self.training.float32.saved):.0%}",
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several networks at one input; ratios are to the first."""

    descriptions: tuple[Description, ...]

    @property
    def fits(self) -> bool:
        """Whether training fits for all."""
        return all(found.fits for found in self.descriptions)

    def __str__(self) -> str:
        return self.text()

    def text(self, *, kinds: bool = False) -> str:
        """Return one table, with `kinds` another one per network; what fits is last."""
        first = self.descriptions[0]
        rows = [("", "params", "", "GMAC", "", "scan GF", "train GiB", "", "AMP GiB")]
        for found in self.descriptions:
            single, half = found.training.float32.total, found.training.amp.total
            rows.append(
                (
                    found.name,
                    f"{found.params / 1e6:.2f} M",
                    _ratio(found.params, first.params),
                    f"{found.macs / 1e9:.2f}",
                    _ratio(found.macs, first.macs),
                    f"{found.scan_flops / 1e9:.2f}" if found.scan_flops else "",
                    f"{single / GIB:.2f}",
                    _ratio(single, first.training.float32.total),
                    f"{half / GIB:.2f}",
                )
            )
        return "\n".join(
            [
                f"input {_input(first)}, {first.num_classes} classes; forward at batch 1 "
                f"({CONVENTION});",
                f"memory of training at batch {first.training.batch}, float32 and AMP (estimate)",
                *table(rows),
                _NOT_COUNTED,
                *_appended(self.descriptions, kinds=kinds),
            ]
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Return a list of what `Description.to_json` gives."""
        return [found.to_json() for found in self.descriptions]


def _appended(descriptions: Iterable[Description], *, kinds: bool) -> list[str]:
    """Return what stands below a page: the kinds of operations where asked for, what fits."""
    pages = [found.kinds_text() for found in descriptions if kinds]
    return pages + [found.fit.text() for found in descriptions if found.fit is not None]


def _encoder_json(part: EncoderPart) -> dict[str, Any]:
    grids = [list(grid) for grid in part.grids]
    return {
        "timm": part.timm,
        "widths": list(part.widths),
        "grids": grids,
        **asdict(part.share),
    }


def _memory_json(memory: Memory) -> dict[str, int]:
    return {
        "total": memory.total,
        "parameters": memory.parameters,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "saved": memory.saved,
        "transient": memory.transient,
    }


def _memory_lines(training: TrainingStep) -> list[str]:
    single = training.float32
    parts = {
        "parameters": single.parameters,
        training.optimizer: single.optimizer,
        "saved": single.saved,
        "transient": single.transient,
    }
    shown = ", ".join(f"{name} {size / MIB:,.0f}" for name, size in parts.items())
    return [
        f"training at batch {training.batch}: about {single.total / GIB:.2f} GiB in float32, "
        f"{training.amp.total / GIB:.2f} GiB under AMP (estimate)",
        f"  in float32, MiB: {shown}",
    ]


def _input(found: "Description") -> str:
    """Return the input, and the size it is padded to where it is."""
    padded = "" if found.padded == found.input[2:] else f" -> {_shape(found.padded)}"
    return f"{_shape(found.input)}{padded}"


def _shape(sizes: Iterable[int]) -> str:
    return " x ".join(str(size) for size in sizes)


def _giga(number: int) -> str:
    return f"{number / 1e9:.3f}"


def _ratio(number: float, first: float) -> str:
    return f"x{number / first:.2f}" if first else ""
