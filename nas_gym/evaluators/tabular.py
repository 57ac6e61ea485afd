"""The reward of a finished architecture by looking it up.

Dimension letters: N queries, R rows of the table, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument, TableError
from nas_gym.evaluators.core import (
    Evaluation,
    Evaluations,
    Evaluator,
    Metric,
    Queries,
    Reference,
    Standing,
    Status,
    checked_seed,
    stream_key,
)
from nas_gym.search_spaces import SEARCH_SPACES, Encoding, SearchSpace
from nas_gym.tables.format import PACKAGED_TABLES, TABLES, Table, read_table
from nas_gym.tables.quality import standard_error

NOISES = ("mean", "sample")


def _check_space(table: Table, space: SearchSpace) -> None:
    """Check that the encodings of a table mean in `space` what they meant when it was built.

    Raises:
        TableError: it belongs to another space, or to one with other settings.
    """
    name = str(table.metadata.get("space"))
    if name != space.name:
        raise TableError(f"{table.path}: a table of the space {name!r}, but {space.name!r} is searched.")
    # A table that records no settings is of the space as it is by default.
    usual = SEARCH_SPACES[name]().settings if name in SEARCH_SPACES else space.settings
    recorded = {**usual, **table.metadata.get("space_settings", {})}
    if recorded != space.settings:
        changed = {key: value for key, value in recorded.items() if space.settings.get(key) != value}
        raise TableError(
            f"{table.path}: a table of {space.name} with {changed}, but the space that is searched differs there."
        )


class TabularEvaluator(Evaluator):
    """Answers from a table in which every architecture was trained.

    Metrics are the table's measurements. The fidelity is the epoch whose accuracy is looked up; the simulated cost
    is the training time up to it. With ``noise="mean"`` an answer is the mean over the table's seeds; with
    ``noise="sample"`` it is one seed, drawn by a stream that depends only on `evaluation_seed`, the canonical
    encoding, the fidelity and how often the query was repeated; seeds that an architecture lacks are not drawn.
    Reports are always the mean at full fidelity. Which measurement is searched by and which is reported, an imported
    table says in its metadata.
    """

    def __init__(
        self, space: SearchSpace, table: str | None = None, noise: str = "mean", evaluation_seed: int = 0
    ) -> None:
        """Load the table.

        Args:
            space: the search space, which must be the table's.
            table: name in `TABLES` or path of a ``.parquet`` file; None = the packaged table of this space.
            noise: "mean" or "sample".
            evaluation_seed: of the drawn seeds, for ``noise="sample"``.

        Raises:
            UnknownName: no such table.
            TableError: the file is damaged, or belongs to another space.
            InvalidArgument: unknown noise, or no table is packaged for this space.
        """
        if noise not in NOISES:
            raise InvalidArgument(f"noise must be one of {', '.join(NOISES)}, got {noise!r}.")
        if table is None and space.name not in PACKAGED_TABLES:
            raise InvalidArgument(
                f"no table is packaged for the space {space.name!r}; name one with table=, of: {', '.join(TABLES)}."
            )
        self.space = space
        self.table: Table = read_table(TABLES[PACKAGED_TABLES[space.name] if table is None else table])
        _check_space(self.table, space)
        self.noise = noise
        self.evaluation_seed = checked_seed(evaluation_seed)
        self.deterministic = noise == "mean"
        self.metrics: Mapping[str, Metric] = {
            name: Metric(measurement.direction, measurement.unit, measurement.held_out)
            for name, measurement in self.table.measurements.items()
        }
        self._names = self.search_metrics
        self._full = self.table.epochs
        self.fidelities = (1 if self._has_curves else self._full, self._full)
        self._dense = len(self.table) == space.size() and int(self.table.codes[-1]) == len(self.table) - 1
        self._repeats: dict[tuple[Encoding, int], int] = {}
        self._answers: dict[int | None, list[Evaluation | None]] = {}
        self._matrices: dict[int, npt.NDArray[np.float64]] = {}

    # --- batches -----------------------------------------------------------------------------------

    def evaluate(self, queries: Queries) -> Evaluations:
        """Look up a batch; rows that the table lacks get the status `build_error`."""
        rows = self._rows(queries)
        if queries.fidelities is None:
            answer = self._at(rows, self._full, queries)
        else:
            for fidelity in (distinct := np.unique(queries.fidelities)):
                self.check_fidelity(int(fidelity))
            if len(distinct) == 1:
                answer = self._at(rows, int(distinct[0]), queries)
            else:
                answer = self._mixed(queries, distinct)
        missing = rows < 0
        return self._without(answer, missing, queries) if missing.any() else answer

    def _rows(self, queries: Queries) -> npt.NDArray[np.int64]:
        """Return the row of each query in the table, -1 where absent, shape [N]."""
        codes = queries.batch.codes
        if self._dense:
            return codes
        positions = np.searchsorted(self.table.codes, codes)
        positions[positions == len(self.table)] = 0
        return np.where(self.table.codes[positions] == codes, positions, -1)

    def _at(self, rows: npt.NDArray[np.int64], fidelity: int, queries: Queries) -> Evaluations:
        if self.noise == "sample":
            seeds = self._draw_seeds(queries, fidelity)
            metrics = {name: self._sampled(name, rows, seeds, fidelity) for name in self._names}
            cost = self._sampled("train_seconds", rows, seeds, fidelity) * self._share(fidelity)
        else:
            # One row of the matrix is one cache line, where separate columns would be one each.
            *columns, cost = self._means(fidelity).take(rows, axis=0, mode="wrap").T
            metrics = dict(zip(self._names, columns, strict=True))
        return Evaluations(np.zeros(len(rows), np.int8), metrics, cost)

    def _mixed(self, queries: Queries, distinct: npt.NDArray[np.int64]) -> Evaluations:
        """Answer a batch of several fidelities, one after the other, and put the rows back in order."""
        count = len(queries)
        metrics = {name: np.empty(count) for name in self._names}
        cost = np.empty(count)
        for fidelity in distinct:
            selection = np.flatnonzero(queries.fidelities == fidelity)
            part_queries = queries.select(selection)
            part = self._at(self._rows(part_queries), int(fidelity), part_queries)
            cost[selection] = part.cost_seconds
            for name, column in part.metrics.items():
                metrics[name][selection] = column
        return Evaluations(np.zeros(count, np.int8), metrics, cost)

    def _without(self, answer: Evaluations, missing: npt.NDArray[np.bool_], queries: Queries) -> Evaluations:
        """Mark the rows that the table lacks as failed and charge each the mean cost at its fidelity."""
        if queries.fidelities is None:
            charge = np.full(len(queries), self.mean_cost())
        else:
            charge = np.array([self.mean_cost(fidelity) for fidelity in queries.fidelities.tolist()])
        return Evaluations(
            np.where(missing, np.int8(Status.BUILD_ERROR), answer.status).astype(np.int8),
            {name: np.where(missing, np.nan, column) for name, column in answer.metrics.items()},
            np.where(missing, charge, answer.cost_seconds),
            {int(row): f"not in the table {self.table.name}" for row in np.flatnonzero(missing)},
        )

    # --- one query ---------------------------------------------------------------------------------

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Look up one architecture, without arrays and from memory the second time; do not change the answer."""
        if not self._dense or self.noise == "sample":
            return super().evaluate_one(encoding, fidelity)
        answers = self._answers.get(fidelity)
        if answers is None:
            self._means(self._full if fidelity is None else fidelity)
            answers = self._answers[fidelity] = [None] * len(self.table)
        row = self.space.code(encoding)
        answer = answers[row]
        if answer is None:
            *values, cost = self._means(self._full if fidelity is None else fidelity)[row].tolist()
            answer = answers[row] = Evaluation(Status.OK, dict(zip(self._names, values, strict=True)), cost)
        return answer

    # --- values ------------------------------------------------------------------------------------

    def _means(self, fidelity: int) -> npt.NDArray[np.float64]:
        """Return search metrics and, last, cost in seconds at a fidelity, float64 [R, metrics + 1]."""
        matrix = self._matrices.get(fidelity)
        if matrix is None:
            self.check_fidelity(fidelity)
            columns = [self._mean(name, fidelity) for name in self._names]
            recorded = "train_seconds" in self.table.measurements
            seconds = self._mean("train_seconds", fidelity) if recorded else np.zeros(len(self.table))
            matrix = self._matrices[fidelity] = np.stack([*columns, seconds * self._share(fidelity)], axis=1)
        return matrix

    @property
    def _has_curves(self) -> bool:
        return any(measurement.epochs for measurement in self.table.measurements.values())

    def _share(self, fidelity: int) -> float:
        """Return the part of the recorded training time that a training of `fidelity` epochs takes."""
        timed = self.table.measurements.get("train_seconds")
        return 1.0 if timed is not None and timed.epochs else fidelity / self._full

    def _mean(self, name: str, fidelity: int) -> npt.NDArray[np.float64]:
        return self.table.mean(name, fidelity if self.table.measurements[name].epochs else None)

    def _sampled(
        self, name: str, rows: npt.NDArray[np.int64], seeds: npt.NDArray[np.float64], fidelity: int
    ) -> npt.NDArray[np.float64]:
        if name not in self.table.measurements:
            return np.zeros(len(rows))
        values = self.table.per_seed(name, fidelity if self.table.measurements[name].epochs else None)
        missing = np.isnan(values)
        if not missing.any():
            return values[rows, (seeds * values.shape[1]).astype(np.int64)]
        # The seeds that an architecture has come first, so that a number in [0, 1) picks one of them.
        present_first = np.argsort(missing, axis=1, kind="stable")[rows]
        chosen = (seeds * (~missing).sum(axis=1)[rows]).astype(np.int64)
        return values[rows, present_first[np.arange(len(rows)), chosen]]

    def _draw_seeds(self, queries: Queries, fidelity: int) -> npt.NDArray[np.float64]:
        """Return a number in [0, 1) per query that picks its seed, shape [N]."""
        drawn = np.empty(len(queries))
        for index, encoding in enumerate(queries.rows):
            # Counted by encoding: were isomorphic ones counted together, their order would matter.
            repeat = self._repeats.get((encoding, fidelity), 0)
            self._repeats[encoding, fidelity] = repeat + 1
            canonical = self.space.canonical(encoding)
            drawn[index] = stream_key(self.evaluation_seed, canonical, fidelity, repeat) / 2**63
        return drawn

    def reset_repeats(self) -> None:
        """Start the noise of repeated queries anew."""
        self._repeats.clear()

    def recall(self, encoding: Encoding, fidelity: int | None, evaluation: Evaluation) -> None:
        """Count a query of an earlier process among the repeats."""
        if self.noise == "sample":
            repeated = encoding, self._full if fidelity is None else fidelity
            self._repeats[repeated] = self._repeats.get(repeated, 0) + 1

    # --- the whole table ---------------------------------------------------------------------------

    def identity(self, encoding: Encoding) -> Encoding:
        """Return the encoding itself: isomorphic cells differ in parameters."""
        return encoding

    @property
    def reported_metric(self) -> str:
        """The metric by which final results are judged: the one that the table names, else the first held-out one."""
        named = str(self.table.metadata.get("report"))
        return named if named in self.metrics else super().reported_metric

    def report(self, encoding: Encoding) -> dict[str, float]:
        """Return the means at full fidelity, held-out metrics included.

        Raises:
            TableError: the table lacks this architecture.
        """
        row = int(self._rows(Queries.of(self.space, [encoding]))[0])
        if row < 0:
            raise TableError(f"{self.table.path}: has no architecture {encoding}.")
        return {name: float(values[row]) for name, values in self._reported.items()}

    @cached_property
    def _reported(self) -> dict[str, npt.NDArray[np.float64]]:
        return {name: self.table.mean(name) for name in self.table.measurements}

    def reported(self, metric: str) -> npt.NDArray[np.float64]:
        """Return the reported value of a metric for every row, shape [R].

        Raises:
            UnknownName: the table does not record it.
        """
        return self.table.mean(metric) if metric not in self._reported else self._reported[metric]

    def reference(self, metric: str) -> Reference | None:
        """Return best, mean and worst of a metric at full fidelity; None where the table is incomplete."""
        if not self._dense:
            return None
        values = self.reported(metric)
        best, worst = float(values.max()), float(values.min())
        if self.table.measurement(metric).direction == "minimize":
            best, worst = worst, best
        return Reference(best, float(values.mean()), worst)

    def standing(self, encoding: Encoding) -> Standing | None:
        """Return rank, regret and noise by the reported metric; None where the table is incomplete."""
        metric = self.reported_metric
        reference = self.reference(metric)
        if reference is None:
            return None
        value = self.report(encoding)[metric]
        values = self.reported(metric)
        better = values > value if self.metrics[metric].direction == "maximize" else values < value
        error = standard_error(self.table, metric)
        return Standing(metric, value, 1 + int(better.sum()), len(values), abs(reference.best - value), error)

    def mean_cost(self, fidelity: int | None = None) -> float:
        """Return the mean simulated seconds of a query, which failed ones are charged."""
        return float(self._means(self._full if fidelity is None else fidelity)[:, -1].mean())
