"""The report of a search that runs: written again whenever there is news, until it has ended."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from search.report.status import Status, read_status
from search.report.write import write_report
from search.study.storage import GRACE

PAUSE = 10.0
"""Seconds between two looks."""


def watch_report(
    folder: Path,
    baselines: Sequence[Path] = (),
    *,
    images: bool = True,
    on_news: Callable[[Status], None] = lambda status: None,
    pause: Callable[[], None] = lambda: time.sleep(PAUSE),
) -> list[Path]:
    """Write the report whenever a trial or a training of the front has ended; return its paths.

    It returns once the search has ended or stands still, and no confirmation runs. What has just
    ended is looked at twice: a confirmation may be about to begin.

    Raises:
        SpecError: as `write_report`; but for that no trial has finished, which is waited for.
    """
    seen: object = None
    over = False
    while True:
        status = read_status(folder)
        news = (status.states, status.confirming, status.activity)
        if news != seen:
            if status.best is not None:
                write_report(folder, baselines, images=images)
            on_news(status)
            seen = news
        if _is_over(status, again=over):
            return write_report(folder, baselines, images=images)
        over = status.activity == "ended"
        pause()


def _is_over(status: Status, *, again: bool) -> bool:
    if status.activity in ("running", "confirming"):
        return False
    return status.silent > GRACE or (status.activity == "ended" and again)
