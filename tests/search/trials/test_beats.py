"""Beats: how a worker's steps come to whoever looks on, without being waited for."""

from search.trials.beats import EVERY, Beat, Pulse, Shared


def test_a_beat_is_news_and_seldom() -> None:
    shared, now = Shared(), [0.0]
    pulse = Pulse(shared, clock=lambda: now[0])
    assert pulse.news() is None, "no step yet"
    shared.note(0, None)
    assert pulse.news() == Beat(0, None)
    for step in range(1, 20):
        shared.note(step, 1 / step)
        assert pulse.news() is None, "not long after the last one"
    now[0] += EVERY
    assert pulse.news() == Beat(19, 1 / 19)
    now[0] += EVERY
    assert pulse.news() is None, "it says nothing twice"
    shared.note(20, None)
    assert pulse.news() == Beat(20, 1 / 19), "a GPU's losses are known later"


def test_the_next_trial_of_a_worker_begins_anew() -> None:
    shared, now = Shared(), [0.0]
    pulse = Pulse(shared, clock=lambda: now[0])
    shared.note(20, 0.5)
    assert pulse.news() == Beat(20, 0.5)
    pulse.restart()
    assert pulse.news() is None
    shared.note(3, None)
    assert pulse.news() == Beat(3, None), "at once, and without the loss of another"
