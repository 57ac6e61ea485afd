"""The share of the time in which workers are busy, without a barrier and beside it with one.

Children cost between one and ten units, uniformly. In a synchronous batch all workers wait for its slowest child;
without a barrier each gets its next child at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import nas_agents
from nas_gym.envs.core.construction import ConstructionVectorEnv
from nas_gym.evaluators.core import Evaluation, Evaluations, Evaluator, Queries, stream_key
from nas_gym.evaluators.decorators import SimulatedWorkers
from nas_gym.evaluators.local_processes import LocalProcesses
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.evaluators.workers import Slot, deal_slots
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces.core import Encoding
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

from .timing import Row

_SIMULATED_WORKERS = 8
_SIMULATED_CHILDREN = 400
_REAL_WORKERS = 2
_REAL_CHILDREN = 40
_REAL_UNIT = 0.1  # seconds
_WANTED = 0.9


def utilisation() -> list[Row]:
    """Compare random search in both loops, with simulated workers and with processes that sleep."""
    return [
        _row(
            f"busy workers, {_SIMULATED_CHILDREN} children of 1 to 10 units (simulated), {_SIMULATED_WORKERS} workers",
            _simulated(barrier=False),
            _simulated(barrier=True),
        ),
        _row(
            f"busy workers, {_REAL_CHILDREN} children of {_REAL_UNIT:g} to {10 * _REAL_UNIT:g} s (measured), "
            f"{_REAL_WORKERS} processes",
            _measured(barrier=False),
            _measured(barrier=True),
        ),
    ]


def _row(what: str, ours: float, other: float) -> Row:
    return Row(
        what,
        f"{ours:.0%} busy".replace("%", " %"),
        f"synchronous: {other:.0%}".replace("%", " %"),
        f"{ours / other:.2f}x",
        f"{_WANTED:.0%}".replace("%", " %"),
        ours >= _WANTED,
    )


def _simulated(barrier: bool) -> float:
    """Return the utilisation of simulated workers."""
    envs = _envs(Uneven(NASBench201Space(), unit=1.0), _SIMULATED_WORKERS)
    simulated: list[SimulatedWorkers] = []

    def wrap(evaluator: Evaluator) -> Evaluator:
        simulated.append(SimulatedWorkers(evaluator, _SIMULATED_WORKERS))
        return simulated[0]

    envs.wrap_evaluator(wrap)
    _search(envs, barrier, _SIMULATED_CHILDREN)
    return simulated[0].utilisation


def _measured(barrier: bool) -> float:
    """Return the utilisation of real processes, from the first decision to the last result."""
    evaluator = Sleeping(NASBench201Space(), _REAL_UNIT, _REAL_WORKERS)
    try:
        evaluator.workers.warm_up()
        envs = _envs(evaluator, _REAL_WORKERS)
        started = time.monotonic()
        _search(envs, barrier, _REAL_CHILDREN)
        return evaluator.workers.busy_seconds / (_REAL_WORKERS * (time.monotonic() - started))
    finally:
        evaluator.close()


def _envs(evaluator: Evaluator, count: int) -> ConstructionVectorEnv:
    return ConstructionVectorEnv(
        evaluator.space,
        evaluator,
        Accuracy(),
        num_envs=count,
        autoreset_mode="Disabled",
        repeat_query="resample+charge",
    )


def _search(envs: ConstructionVectorEnv, barrier: bool, children: int) -> None:
    agent = nas_agents.make("random_search", envs, 0)
    if barrier:
        nas_agents.run(agent, envs, children, 0)
    else:
        nas_agents.run_without_barrier(agent, envs, children, 0)


class Uneven(SyntheticEvaluator):
    """A landscape whose architectures cost 1 to 10 units, uniformly, each always the same."""

    def __init__(self, space: NASBench201Space, unit: float) -> None:
        """Create it; `unit` is in seconds."""
        super().__init__(space)
        self.unit = unit

    def evaluate(self, queries: Queries) -> Evaluations:
        """Evaluate a batch."""
        return Evaluations.of([self.evaluate_one(row) for row in queries.rows], self.search_metrics)

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Evaluate one architecture."""
        cost = self.unit * (1 + 9 * stream_key("cost", encoding) / 2**63)
        return super().evaluate_one(encoding, fidelity, parent)._replace(cost_seconds=cost)


class Sleeping(Uneven):
    """The same, where worker processes really take that long."""

    def __init__(self, space: NASBench201Space, unit: float, count: int) -> None:
        """Prepare `count` processes."""
        super().__init__(space, unit)
        self.workers: LocalProcesses[float, None] = LocalProcesses(_make_sleeper, deal_slots(count))
        self._answers: dict[int, Evaluation] = {}

    @property
    def slots(self) -> int:
        """Return the number of processes."""
        return self.workers.count

    def submit(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> int:
        """Let a process take as long as the architecture costs."""
        answer = self.evaluate_one(encoding, fidelity, parent)
        ticket = self.workers.submit(answer.cost_seconds)
        self._answers[ticket] = answer
        return ticket

    def collect(self, timeout: float | None = None) -> list[tuple[int, Evaluation]]:
        """Return the answers of the processes that are done."""
        done = self.workers.collect(timeout)
        return [(completion.ticket, self._answers.pop(completion.ticket)) for completion in done]

    def evaluate(self, queries: Queries) -> Evaluations:
        """Evaluate a batch and wait for all of it."""
        tickets = [self.submit(row) for row in queries.rows]
        answers: dict[int, Evaluation] = {}
        while len(answers) < len(tickets):
            answers.update(self.collect())
        return Evaluations.of([answers[ticket] for ticket in tickets], self.search_metrics)

    def close(self) -> None:
        """End the processes."""
        self.workers.close()


def _make_sleeper(_: Slot) -> Callable[[float], None]:
    return time.sleep


__all__ = ["utilisation"]
