"""SQLite stays off the drives of a network, by what the system says of its mounts."""

from pathlib import Path

import pytest

from blocks.base import SpecError
from search.study.drives import check_for_sqlite, kind_of_drive


def mounts(file: Path, kind: str, shared: Path) -> Path:
    """Write what Linux would say were the folder on such a drive; blanks are escaped there."""
    point = str(shared).replace(" ", r"\040")
    lines = (
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
        f"40 22 0:50 / {point} rw,relatime shared:9 - {kind} server:/export rw,vers=4.2",
        "41 22 0:51 / /elsewhere rw - tmpfs tmpfs rw",
    )
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "gpfs", "beegfs", "cifs"])
def test_a_study_on_a_drive_of_the_network_is_refused(tmp_path: Path, kind: str) -> None:
    found = mounts(tmp_path / "mounts", kind, tmp_path / "a b")
    with pytest.raises(SpecError, match=rf"study\.db: is on {kind}, .*`storage`"):
        check_for_sqlite(tmp_path / "a b" / "runs" / "new", found)
    check_for_sqlite(tmp_path / "a", found)
    assert kind_of_drive(tmp_path, found) == "ext4"


def test_a_system_that_does_not_tell_refuses_nothing(tmp_path: Path) -> None:
    check_for_sqlite(tmp_path, tmp_path / "nothing")
    check_for_sqlite(tmp_path)
