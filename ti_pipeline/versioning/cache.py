"""Where DVC keeps the files that it links into a workspace."""

from __future__ import annotations

from pathlib import Path

from dvc.config import Config
from dvc.exceptions import DvcException

_DVC = ".dvc"


def cache_above(folder: Path) -> Path | None:
    """The cache of the DVC workspace that `folder` lies in, resolved; None outside of one and where DVC cannot read its config.

    `folder` itself is not asked: a set that came from elsewhere must not say which files are ours.
    """
    home = next((above / _DVC for above in folder.absolute().parents if (above / _DVC / Config.CONFIG).is_file()), None)
    if home is None:
        return None
    try:
        chosen = Config(str(home))["cache"].get("dir")  # of all levels: system, user, repository, local
    except DvcException:
        return None
    return Path(chosen or home / "cache").resolve()
