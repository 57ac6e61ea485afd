"""What a run queried and what it cost."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nas_agents
from nas_benchmarks.ledger import Ledger, changes_of_incumbent, makespan
from nas_benchmarks.metrics import Trace, incumbents
from nas_benchmarks.tasks import Task
from nas_gym.errors import BudgetExhausted

SYNTHETIC = Task("synthetic", "NAS-Cell-v0", {"evaluator": "synthetic"})

costs = st.lists(st.floats(0.0, 100.0), max_size=30)


@given(costs, st.integers(1, 6))
def test_several_workers_are_between_one_and_perfect(seconds: list[float], workers: int) -> None:
    """List scheduling is at most twice the optimum, which is at least the mean load and the longest query."""
    total, longest = sum(seconds), max(seconds, default=0.0)
    least = max(total / workers, longest)
    found = makespan(seconds, workers)
    assert least * (1 - 1e-9) <= found <= min(total, 2 * least) * (1 + 1e-9)


def test_queries_go_in_order_to_the_worker_that_is_free_first() -> None:
    """By hand: worker 1 has 2, then 4; worker 2 has 3, then 1, then 1."""
    assert makespan([2.0, 3.0, 4.0, 1.0, 1.0], 2) == 6.0


def test_incumbents_are_kept_where_they_change() -> None:
    """Query, signal and held-out value of each; what lies between follows from them."""
    signal = np.array([np.nan, 0.2, 0.1, 0.5, 0.5])
    trace = Trace(signal, np.array([np.nan, 0.3, np.nan, 0.4, np.nan]), np.arange(5))
    assert changes_of_incumbent(trace) == [[2, 0.2, 0.3], [4, 0.5, 0.4]]
    assert incumbents(signal).tolist() == [-1, 1, 1, 3, 3]


def test_a_listener_keeps_what_a_sink_keeps() -> None:
    """The same queries told from below the environments and by the runner give the same trace and costs."""
    envs = SYNTHETIC.make_envs(5)
    sink, listener = Ledger(), Ledger()
    envs.problem.listeners.append(listener.on_answered)
    agent = nas_agents.make("random_search", envs, 0, batch_size=5)
    nas_agents.run(agent, envs, 23, 0, [sink])
    first, second = sink.trace(envs), listener.trace(envs)
    for name in ("signal", "held_out", "codes"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(sink.costs(first), listener.costs(second))
    assert len(sink) == len(listener) == 23


def test_the_costs_add_up_to_the_simulated_seconds() -> None:
    """Of the counter."""
    env: Any = gymnasium.make("NAS-Cell-v0", evaluator="synthetic").unwrapped
    ledger = Ledger()
    env.problem.listeners.append(ledger.on_answered)
    env.counter.budget = 4
    rng = np.random.default_rng(0)
    with pytest.raises(BudgetExhausted):
        while True:
            env.reset()
            for action in env.space.sample(rng):
                env.step(action)
    assert ledger.costs(ledger.trace(env)).sum() == pytest.approx(env.counter.usage().simulated_seconds)
    assert ledger.encoding(0) == tuple(int(choice) for choice in ledger.encoding(0))
