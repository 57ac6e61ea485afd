"""Tables of published benchmarks, which every user imports once from the official files; none is packaged."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from pathlib import Path

from nas_gym.errors import TableError
from nas_gym.evaluators import EVALUATORS
from nas_gym.tables.format import TABLES


@dataclass(frozen=True)
class BenchmarkTables:
    """The tables that `nas-gym tables import` makes of the files of one benchmark, called ``NAME-DATASET``.

    Attributes:
        name: NAME, as given to the import.
        dataset: data set of the table that is used unless another is asked for.
        source: the official file or folder that is imported.
    """

    name: str
    dataset: str
    source: str

    @property
    def default(self) -> str:
        """Name of the table that is used unless another is asked for."""
        return f"{self.name}-{self.dataset}"

    def choose(self, evaluator: str, table: str | None) -> str | None:
        """Return the table that an evaluator shall read: `table`, by default ``NAME-DATASET``.

        Args:
            evaluator: name in `EVALUATORS`, or ``module:Class``; for one that reads no table `table` is returned as it
                is, so that it can refuse what has no effect.
            table: what was asked for, None = the default.

        Raises:
            UnknownName: no such evaluator.
            TableError: the default table, or another one of this benchmark, has not been imported.
        """
        if "table" not in inspect.signature(EVALUATORS[evaluator]).parameters:
            return table
        chosen = self.default if table is None else str(table)
        if chosen.startswith(f"{self.name}-") and not chosen.endswith(".parquet") and chosen not in TABLES:
            raise TableError(self._missing(chosen))
        return chosen

    def _missing(self, table: str) -> str:
        root = os.environ.get("NAS_GYM_DATA")
        folder = "NAS_GYM_DATA/tables, and NAS_GYM_DATA is not set" if not root else str(Path(root) / "tables")
        return (
            f"the table {table!r} is not installed. It is not packaged; imported tables are looked for in {folder}. "
            f"Import the benchmark's official files once, with NAS_GYM_DATA set to a folder of yours: "
            f"nas-gym tables import {self.source} --name {self.name}. Without a table, evaluator='synthetic' answers "
            f"from an analytic landscape and evaluator='training' trains the networks now. "
            f"Installed tables: {', '.join(TABLES)}."
        )
