"""What a search is asked for."""

from dataclasses import dataclass
from pathlib import Path

from search.space.space import Space
from search.study.protocol import Terms
from search.study.warm import Taken
from search.trials.host import ONE_CPU, TrainingHost
from search.trials.own import Data


@dataclass(frozen=True, eq=False)
class SearchTask:
    """Search the space on the data, into the run folder, until `trials` trials have ended.

    So many `seconds` after it starts no further trial is begun.
    """

    space: Space
    dataset: Data
    folder: Path
    trials: int
    host: TrainingHost = ONE_CPU
    seconds: float | None = None
    first: tuple[Taken, ...] = ()
    """Tried after the anchors, before anything is drawn."""
    terms: Terms | None = None
    """Of a verdict on the run, kept before anything is trained where there is a test part."""
    groups: Path | None = None
    """A file that says whose the cases are: the test part has whole persons."""
    storage: str | None = None
    """The address of the server that is to have the study; None: `server.server_of` decides."""
