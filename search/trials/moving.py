"""An engine that somebody looks at."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from search.trials.engine import Beating, Engine, MakeEngine
from search.trials.moves import Move, OnMoves
from search.trials.worker import Message, WorkerSettings

if TYPE_CHECKING:
    from search.trials.train import Rung, TrialTask


def moving(
    make_engine: MakeEngine, on_moves: OnMoves | None, dice_of: "Callable[[Rung], float]"
) -> MakeEngine:
    """Return what makes the engine, with somebody who looks on."""
    if on_moves is None:
        return make_engine

    def make(settings: WorkerSettings, devices: list[str]) -> Engine:
        return MovingEngine(make_engine(settings, devices), on_moves, dice_of)

    return make


class MovingEngine:
    """An engine of whose trainings `on_moves` is told; beats end here, its owner gets none."""

    def __init__(
        self, engine: Engine, on_moves: OnMoves, dice_of: "Callable[[Rung], float]"
    ) -> None:
        self._engine = engine
        self._on_moves = on_moves
        self._dice_of = dice_of
        self._moves: dict[int, Move] = {}

    def __enter__(self) -> Self:
        self._engine = self._engine.__enter__()
        if isinstance(self._engine, Beating):
            self._engine.tell_beats()
        return self

    def __exit__(self, *error: object) -> None:
        self._moves.clear()
        self._tell()
        self._engine.__exit__(*error)

    @property
    def num_idle(self) -> int:
        return self._engine.num_idle

    @property
    def num_busy(self) -> int:
        return self._engine.num_busy

    def submit(self, task: "TrialTask") -> None:
        self._engine.submit(task)
        name = task.name or f"trial {task.number}"
        self._moves[task.number] = Move(name, None, task.rung_steps[-1])
        self._tell()

    def stop(self, number: int) -> None:
        self._engine.stop(number)
        self._end(number)

    def messages(self) -> Iterator[Message]:
        for message in self._engine.messages():
            self._hear(message)
            if message.event != "beat":
                yield message

    def _hear(self, message: Message) -> None:
        before = self._moves.get(message.number)
        if message.event == "beat":
            beat = message.beat
            if before is not None and beat is not None:
                self._put(message.number, replace(before, step=beat.step, loss=beat.loss))
        elif message.event == "rung":
            rung = message.rung
            if before is not None and rung is not None:
                dice = self._dice_of(rung)
                now = replace(before, step=rung.step, loss=rung.loss, dice=dice)
                self._put(message.number, now)
        else:
            self._end(message.number)

    def _put(self, number: int, move: Move) -> None:
        self._moves[number] = move
        self._tell()

    def _end(self, number: int) -> None:
        self._moves.pop(number, None)
        self._tell()

    def _tell(self) -> None:
        self._on_moves(tuple(self._moves.values()))
