"""Ranks in the place of times, which stay exact in all that RecBole does with them."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction

from recbole_genrec.data.files.times import ranks


class RankedTimes(Dataset):
    """What stands before RecBole's dataset so that it sees ranks, see :func:`~.times.ranks`.

    Where there are more ranks than float32 tells apart, they are int64 and stay so: RecBole does
    not normalise them, and no tensor rounds them.
    """

    def _remap_ID_all(self) -> None:  # noqa: N802 (RecBole's name)
        if self.time_field in self.inter_feat:
            times = self.inter_feat[self.time_field].to_numpy()
            self.inter_feat[self.time_field] = ranks(times)
        super()._remap_ID_all()

    def _normalize(self) -> None:
        times = self.inter_feat.get(self.time_field)
        super()._normalize()
        if _are_whole(times):
            self.inter_feat[self.time_field] = times

    def _dataframe_to_interaction(self, data: pd.DataFrame) -> Interaction:
        """As RecBole's, which makes float32 of every number."""
        rows = super()._dataframe_to_interaction(data)
        times = data.get(self.time_field)
        if _are_whole(times):
            rows[self.time_field] = torch.tensor(times.to_numpy())
        return rows


def _are_whole(times: pd.Series | None) -> TypeGuard[pd.Series]:
    return times is not None and times.dtype == np.int64
