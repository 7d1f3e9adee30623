"""What becomes at the far side of files that are gone here: kept, marked, and removed after a time; never
more than the policy says, and never all at once."""

from __future__ import annotations

import logging

from raftwright.errors import NotFoundError, RaftwrightError
from raftwright.mirror.bringing import Bringer
from raftwright.mirror.far import Far
from raftwright.mirror.manifest import Manifest
from raftwright.mirror.settings import TreeSettings
from raftwright.mirror.tree import shown
from raftwright.transfer import OutageError

__all__ = ["Tidier"]

_log = logging.getLogger("raftwright.mirror")

_AT_A_TIME = 500
_FEW = 100
"""So many that vanish are no reason to brake."""


class Tidier:
    """Belongs to one thread."""

    def __init__(self, far: Far, manifest: Manifest, bringer: Bringer, settings: TreeSettings) -> None:
        self._far = far
        self._manifest = manifest
        self._bringer = bringer
        self._settings = settings
        self.trouble = ""
        """Why nothing is marked."""

    def tidy(self) -> int:
        """Marks and removes what is due; how many. Raises StorageError."""
        if self._settings.deleted == "keep":
            return 0
        done = 0
        vanished = self._manifest.vanished(self._settings.gone_after, _AT_A_TIME)
        if not vanished or not self._brakes():
            for entry in vanished:
                try:
                    done += self._bringer.mark(entry)
                except NotFoundError:
                    self._manifest.far(entry, "")
                except OutageError as error:
                    self.trouble = str(error)
                    return done
                except RaftwrightError as error:
                    _log.error("%s: %s cannot be marked: %s", self._settings.name, shown(entry.path), error)
                    continue
        if self._settings.deleted == "remove-after":
            for version in self._manifest.old_versions("deleted", self._settings.remove_after, _AT_A_TIME):
                self._far.sender.remove(version.target)
                self._manifest.version_removed(version)
                done += 1
        return done

    def _brakes(self) -> bool:
        there, gone = self._manifest.standing()
        accepted = int(self._manifest.word("accepted") or 0)
        self.trouble = ""
        if gone > max(_FEW, accepted, self._settings.brake * there):
            self.trouble = (
                f"{gone} of {there} files have vanished from {self._settings.source}; nothing is marked: "
                "if that is meant, say `raftwright mirror accept`"
            )
            return True
        if accepted and not gone:
            self._manifest.remember("accepted", "0")
        return False

    def accept(self) -> int:
        """What has vanished until now is meant; how many that are. Raises StorageError."""
        _, gone = self._manifest.standing()
        self._manifest.remember("accepted", str(gone))
        return gone
