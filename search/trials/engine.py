"""The seam between who decides about trials and who trains them."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from search.trials.worker import Message, WorkerSettings

if TYPE_CHECKING:
    from search.trials.train import TrialTask


class Engine(Protocol):
    """Places that train, one trial each, while the engine is entered; one thread asks it.

    **Places.** Every place is idle or busy, and there is at least one. A place that is lost counts
    as idle, and `submit` replaces it, or waits until it is back. Leaving the engine ends its places
    at once, trials and all: what they wrote stays.

    **At most once.** An engine never trains a task again by itself, whatever happens to its place:
    it tells `lost`, and its owner decides. The folder of a task is the place's own to write until
    then; a place that is lost without having died, beyond a network say, may write on, so that
    whoever submits the trial again does so in another folder or knows that the place has ended.

    **Messages.** Of a task come its rungs in order, then one of `done`, `failed`, `lost`, `storage`
    and `data`, and nothing after that; nor after the rung at which the owner stopped it. The rung
    of a checkpoint is told again. A place is idle as soon as the last message of its task is
    yielded, or its rung is handled for which `stop` was called. A place that is gone as a whole is
    told of as such: `PLACE_LOSSES` of those a trial survives, whatever else becomes of it.

    **Rungs wait.** A trial that told of a rung does not go on before the owner is done with that
    message, that is asks for the next one: nothing is trained beyond a rung that is not on record.

    An error that no trial can help (no such device, say) is a SpecError of whichever method met it.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    @property
    def num_idle(self) -> int:
        """Return how many places have no task."""
        ...

    @property
    def num_busy(self) -> int:
        """Return how many tasks are with a place; each is yet to end by a message or by `stop`."""
        ...

    def submit(self, task: "TrialTask") -> None:
        """Give the task to an idle place; to be called only where there is one.

        `task.number` names it, and is that of no other busy one.
        """
        ...

    def stop(self, number: int) -> None:
        """End the trial at its rung; to be called while that, as `messages` yielded it, is handled.

        The trial says nothing more.
        """
        ...

    def messages(self) -> Iterator[Message]:
        """Wait about a second for busy places, then yield what they have said; may yield nothing.

        To be read to its end, or the last rung of it would wait for ever.
        """
        ...


@runtime_checkable
class Beating(Protocol):
    """An engine that can also tell between rungs how far its trials are; none needs to.

    A `beat` comes between the other messages of a task: any number of them or none, some seconds
    apart. It waits for nobody, and nothing may depend on it: whoever passes messages on may drop
    it.
    """

    def tell_beats(self) -> None:
        """Let `messages` yield them too; unasked for there are none."""
        ...


PLACE_LOSSES = 5
"""Losses of its whole place, by which a trial is not judged, after which it fails all the same."""

MakeEngine = Callable[[WorkerSettings, list[str]], Engine]
"""Makes an engine of what all trials share, with a place per device."""
