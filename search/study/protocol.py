"""protocol.lock: what a verdict on a run will be judged by, written before its first training."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from archspec.files import read_json, write_text
from blocks.errors import Place, SpecError
from search.space.objectives import CostName
from search.study.damage import DATABASE
from search.study.record import RunRecord
from search.study.session import SESSIONS, read_sessions
from search.trials.recorded import from_record

LOCK = "protocol.lock"
MARGIN = 0.01
_RULE = 1
"""Which rule decides, see docs/verdict.md; another rule has another number."""
_DIGITS = 12
_BACK = "put back what the search wrote; another margin or split is another run"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What may be asked of a verdict.

    `margin` is the difference in Dice that would matter, `seeds` are the trainings of each network
    that is compared. With a `mixer` the question is what it is worth over convolution.
    """

    margin: float = MARGIN
    seeds: int = 3
    mixer: str | None = None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What protocol.lock holds. `cost` is that at which networks are compared."""

    rule: int
    margin: float
    seeds: int
    mixer: str | None
    metric: str
    cost: CostName
    steps: int
    dataset: str
    configuration: str
    fold: int
    seed: int
    test_cases: tuple[str, ...]
    digest: str = ""
    """Of the file's hash, which stands beside everything that was trained under it."""

    @classmethod
    def of(cls, terms: Terms, record: RunRecord) -> "Protocol":
        """Return the protocol of a run."""
        objectives = record.objectives
        return cls(
            **asdict(terms),
            rule=_RULE,
            metric=objectives.dice_label,
            cost="latency" if "latency" in objectives.costs else "flops",
            steps=record.steps,
            dataset=record.dataset,
            configuration=record.configuration,
            fold=record.fold,
            seed=record.seed,
            test_cases=record.test_cases or (),
        )

    @property
    def terms(self) -> Terms:
        """Return what was asked for."""
        return Terms(margin=self.margin, seeds=self.seeds, mixer=self.mixer)

    def text(self) -> str:
        """Return the content of the file."""
        known = {key: value for key, value in asdict(self).items() if key != "digest"}
        return json.dumps(known, indent=2) + "\n"


def fix_protocol(folder: Path, terms: Terms | None, record: RunRecord) -> str:
    """Return the digest of the run's protocol, which a new run that has a test part gets now.

    Empty where it has none.

    Raises:
        SpecError: it is not what was written, or a run is gone on with on other terms.
    """
    fresh = not (folder / DATABASE).is_file() and not read_sessions(folder)
    found = read_protocol(folder, record, fresh=fresh)
    if found is None and fresh and terms is not None and record.test_cases:
        content = Protocol.of(terms, record).text()
        write_text(folder / LOCK, content)
        return _digest(content.encode())
    if found is not None and terms is not None and terms != found.terms:
        own, given = asdict(found.terms), asdict(terms)
        changed = [f"{name} {own[name]}" for name in own if own[name] != given[name]]
        raise SpecError(
            f"its protocol says {', '.join(changed)}, which other options ask to change",
            where=folder,
            suggestion="go on with what it says, or give another `folder`",
        )
    return "" if found is None else found.digest


def read_protocol(folder: Path, record: RunRecord, *, fresh: bool = False) -> Protocol | None:
    """Return the protocol of a run, None where its search wrote none.

    What the run noted of it at every start is the witness that it stood before anything was
    trained; a `fresh` run has not started yet.

    Raises:
        SpecError: it was changed, is gone, came later, or does not go with the run.
    """
    file = folder / LOCK
    noted = [str(one.get("protocol") or "none") for one in read_sessions(folder)]
    if not file.is_file():
        if set(noted) - {"none"}:
            raise SpecError("is gone", where=file, suggestion=_BACK)
        return None
    found = _read(file)
    others = ", ".join(sorted(set(noted) - {found.digest}))
    if others or not (noted or fresh):
        raise SpecError(
            f"is {found.digest}, but {SESSIONS} notes {others or 'none'} from before the first "
            "training",
            where=file,
            suggestion=_BACK,
        )
    if found != replace(Protocol.of(found.terms, record), digest=found.digest):
        raise SpecError("does not go with run.json", where=file, suggestion=_BACK)
    return found


def check_digest(found: str, protocol: Protocol, where: Place) -> None:
    """Refuse a row that was not trained under the protocol.

    Raises:
        SpecError: it was not.
    """
    if found != protocol.digest:
        raise SpecError(
            f"was trained under the protocol {found or 'none'}, but {LOCK} is {protocol.digest}; "
            "no verdict mixes them",
            where=where,
        )


def _read(file: Path) -> Protocol:
    try:
        found = read_json(file)
        known = {**found, "test_cases": tuple(found["test_cases"])}
        protocol = from_record(Protocol, {**known, "digest": _digest(file.read_bytes())})
        margin, seeds = protocol.margin, protocol.seeds
        if type(margin) is not float or not 0 < margin < math.inf or type(seeds) is not int:
            raise TypeError("margin, seeds")
    except (TypeError, KeyError, ValueError):
        raise SpecError("damaged", where=file, suggestion=_BACK) from None
    if protocol.rule != _RULE:
        raise SpecError(
            f"is of rule {protocol.rule}, which this release does not know",
            where=file,
            suggestion="use the release that made the run",
        )
    return protocol


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
