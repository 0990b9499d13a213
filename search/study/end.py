"""Why a trial ended."""

from enum import StrEnum


class End(StrEnum):
    """Why a trial ended; one that waits or runs has none. The values are stored."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"
    OVER_LIMIT = "over_limit"
    INVALID = "invalid"
    REPEATED = "repeated"

    @property
    def counts(self) -> bool:
        """Say whether it counts: trained to the end, stopped, or failed by its own fault."""
        return self in (End.COMPLETED, End.STOPPED, End.FAILED)

    @property
    def pruned(self) -> bool:
        """Say whether Optuna is told PRUNED: stopped, or drawn and not trained."""
        return self in (End.STOPPED, End.OVER_LIMIT, End.INVALID, End.REPEATED)
