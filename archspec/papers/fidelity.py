"""Networks against what papers state about them: one page each."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from archspec.costs.counters import count
from archspec.papers.compare import compare_claims
from archspec.papers.data import paper_of
from archspec.papers.page import Page
from archspec.spec.schema import ArchSpec


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The pages of several networks."""

    pages: tuple[Page, ...]

    @property
    def explained(self) -> bool:
        """Whether every claimed cost is what is built, or a note says why not."""
        return not any(page.unexplained for page in self.pages)

    def text(self) -> str:
        """Return the pages, and below them a line per claim that nothing explains."""
        unexplained = [page.unexplained_text() for page in self.pages if page.unexplained]
        return "\n".join(["\n\n".join(page.text() for page in self.pages), *unexplained])

    def to_json(self) -> list[dict[str, Any]]:
        """Return what `archspec fidelity --json` prints."""
        return [page.to_json() for page in self.pages]


def fidelity(specs: Iterable[ArchSpec], *, counters: bool = False) -> Fidelity:
    """Compute what each spec claims; with `counters` also run other people's counters.

    Raises:
        SpecError: a claim's sizes do not fit the network.
    """
    return Fidelity(tuple(fidelity_page(spec, counters=counters) for spec in specs))


def fidelity_page(spec: ArchSpec, *, counters: bool = False) -> Page:
    """Return the page of one spec, as `fidelity` does."""
    counted = count(spec) if counters else None
    return Page(spec, paper_of(spec.name), compare_claims(spec), counted)
