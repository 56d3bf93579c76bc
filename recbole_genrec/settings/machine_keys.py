"""Keys of the machine that a run is computed on, and of what it shows there."""

from __future__ import annotations

from typing import Any

from recbole_genrec.settings.declaration import Settings, key


class MachineKeys(Settings):
    """Where a run computes, and whether it shows bars."""

    device: Any = key("device of the run", affects="display", computed=True)
    show_progress: bool = key(
        "progress bars", affects="display", evaluate=True, set_by_benchmark=True
    )

    @property
    def chosen_device(self) -> Any:
        """``device``; the CPU where RecBole has not chosen one."""
        return self.device or "cpu"

    @property
    def shows_progress(self) -> bool:
        """``show_progress``; with bars where nothing is said."""
        return self.show_progress is not False
