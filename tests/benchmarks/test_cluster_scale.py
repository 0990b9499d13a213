"""Places that sleep: every rung and every end is one report, and none is trained twice."""

from cluster_scale import measured


def test_every_rung_and_every_end_is_a_report() -> None:
    found = measured(2, 0.0, 3, "sqlite")
    assert found.reports == 3 * (4 + 1)
    assert found.cpu > 0
