"""What kind of drive a folder is on: SQLite's locks do not hold on those of a network."""

from pathlib import Path

from blocks.errors import SpecError
from search.study.damage import DATABASE

_MOUNTS = "/proc/self/mountinfo"
_NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "cifs", "smb", "ceph", "glusterfs", "fuse.sshfs")
"""What the names of such file systems begin with."""


def check_for_sqlite(folder: Path, mounts: Path | None = None) -> None:
    """Refuse to keep a study on a drive of the network, while other machines use that too.

    Raises:
        SpecError: see above.
    """
    kind = kind_of_drive(folder, mounts)
    if kind.startswith(_NETWORK):
        raise SpecError(
            f"is on {kind}, where SQLite's locks do not hold",
            where=folder / DATABASE,
            suggestion="keep the study on a server (`storage`); `storage` sqlite keeps it there "
            "all the same, where this machine alone opens the run",
        )


def kind_of_drive(folder: Path, mounts: Path | None = None) -> str:
    """Return the file system that the folder, which may be yet to be made, is on; "" if unknown."""
    try:
        lines = (mounts or Path(_MOUNTS)).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # only Linux tells
        return ""
    path, kind, longest = folder.resolve(), "", -1
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split(" ")[4].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= longest:
            kind, longest = after.split(" ")[0], len(point.parts)
    return kind
