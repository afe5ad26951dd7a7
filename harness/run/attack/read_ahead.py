"""Images that are not on the device are read ahead, in the order in which the schedule asks for them."""

from __future__ import annotations

import numpy as np
import torch

from epsbench.harness.run.attack.schedule import Each
from epsbench.harness.run.attack.targets import Targets


class ReadAhead:
    """Announces the images of the next rows, two batches at a time; does nothing where all are on the device."""

    def __init__(self, targets: Targets, schedule: Each) -> None:
        self._targets, self._schedule = targets, schedule
        self._announced = 0

    def after(self, rows: int, batch: int) -> None:
        """So many rows were just taken from the schedule; ``batch`` is how many are taken at most at once."""
        if self._targets.expect is None:
            return
        self._announced -= rows
        if self._announced < batch:
            coming = self._schedule.coming(2 * batch)
            self._targets.expect(torch.from_numpy(np.unique(self._schedule.split(coming)[2])))
            self._announced = len(coming)
