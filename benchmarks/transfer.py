"""Learning to search: train an agent on some tables, deploy it on others, beside searches that learn nothing before.

``python -m nas_benchmarks.transfer --deploy digits --deploy nats-cifar10 --update README.md``. Training queries and
deployment queries are two budgets: a policy is trained once, by Maskable PPO on `NAS-Cell-Improve-v0`, and then frozen;
every method is judged by what it finds with the same small number of queries. One deployment is one line of the
record, so an interrupted command continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

import nas_agents
import nas_gym
from nas_gym.errors import BudgetExhausted, InvalidArgument
from nas_gym.evaluators.core import Status

from .markdown import replace_between
from .metrics import Trace, best_so_far, score, simple_regret
from .records import append_row, read_rows
from .statistics import difference_interval, mean_interval, shown
from .tasks import Task, WholeSpace
from .traces import TraceRecorder

RECORD = Path(__file__).parent / "baselines" / "transfer.jsonl"
IMPROVE = "NAS-Cell-Improve-v0"
HORIZON = 20
BUDGET = 100
CHECKPOINTS = (10, 25, 50)
TRAINING_QUERIES = 200_000
TRAINING: Mapping[str, Any] = {
    "num_envs": 64,
    "n_steps": 32,
    "batch_size": 512,
    "n_epochs": 10,
    "learning_rate": 3e-3,
    "gamma": 0.8,
    "ent_coef": 0.01,
}
"""Settings of Maskable PPO: of a dozen that were tried with one seed on `digits` and `nats-cifar100`, the best ones.

`nats-cifar10` took no part in the choice.
"""

LEARNT = "trained policy"
UNTRAINED = ("random edits", "random_search", "local_search", "evolution")
"""Methods that learn nothing before the deployment; all but the first are agents on `NAS-Cell-v0`."""

FIRST_DEPLOYMENT_SEED = 1_000_000
"""Seeds of deployments lie beyond those of all training episodes."""

Policy = Callable[[npt.NDArray[Any], npt.NDArray[np.bool_]], int]
"""Maps an observation and its mask to an action."""


def train(table: str, seed: int, queries: int = TRAINING_QUERIES, **arguments: Any) -> Policy:  # noqa: ANN401
    """Train a policy on tables and return it frozen; it draws its actions as it did while learning.

    Args:
        table: of the training, several separated by commas.
        seed: of training and policy.
        queries: of the training.
        **arguments: of the environment, for other tasks than tables.
    """
    envs: Any = gymnasium.make_vec(
        IMPROVE, TRAINING["num_envs"], autoreset_mode="Disabled", horizon=HORIZON, **(arguments or {"table": table})
    ).unwrapped
    agent: Any = nas_agents.make("sb3:maskable_ppo", envs, seed, **TRAINING)
    nas_agents.run(agent, envs, queries, seed)

    def act(observation: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> int:
        return int(agent.act(observation[None], mask[None], np.ones(1, np.bool_))[0])

    return act


def random_edits(seed: int) -> Policy:
    """Return a policy that makes a random edit and never stops."""
    rng = np.random.default_rng(seed)
    return lambda _, mask: int(rng.choice(np.flatnonzero(mask[1:]) + 1))


def deploy(policy: Policy, seed: int, budget: int = BUDGET, **arguments: Any) -> tuple[Trace, Any]:  # noqa: ANN401
    """Let a policy search, episode after episode, until the budget is used; return what it queried and the task."""
    answers: list[Any] = []
    env = deployed(policy, seed, budget, answers.append, **arguments)
    return _trace(answers, env), env


def deployed(
    policy: Policy,
    seed: int,
    budget: int,
    listener: Callable[[Any], None],
    **arguments: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401 - an environment of nas-gym
    """Let a policy search until the budget is used, telling a listener of every query; return the environment."""
    env: Any = gymnasium.make(IMPROVE, horizon=HORIZON, **arguments).unwrapped
    env.problem.listeners.append(listener)
    env.counter.budget = budget
    over = True
    observation: npt.NDArray[Any] = np.zeros(0)
    first: int | None = seed
    try:
        while True:
            if over:
                observation, _ = env.reset(seed=first)
                first = None
            observation, _, terminated, truncated, _ = env.step(policy(observation, env.action_masks()))
            over = terminated or truncated
    except BudgetExhausted:
        return env


def _trace(answers: Sequence[Any], env: Any) -> Trace:  # noqa: ANN401 - an environment of nas-gym
    """Return what was queried in the form that is judged."""
    encodings = [answer.encodings[0] for answer in answers]
    failed = [answer.status[0] != Status.OK.label for answer in answers]
    signal = np.where(failed, np.nan, [float(answer.rewards[0]) for answer in answers])
    metric = env.evaluator.reported_metric
    held_out = np.array([env.evaluator.report(encoding)[metric] for encoding in encodings])
    codes = np.array([env.space.code(env.space.canonical(encoding)) for encoding in encodings], np.int64)
    return Trace(signal, held_out, codes)


def search(agent: str, task: Task, seed: int, budget: int = BUDGET) -> tuple[Trace, Any]:
    """Run one of our agents on the construction task of the same table."""
    config = nas_agents.make_config(nas_agents.AGENTS[agent])
    envs = task.make_envs(min(nas_agents.episodes_at_once(config), budget))
    recorder = TraceRecorder()
    result = nas_agents.run(nas_agents.make(agent, envs, seed), envs, budget, seed, [recorder])
    return recorder.trace(envs, exhausted=result.reason == "exhausted"), envs


@cache
def _whole_space(table: str) -> WholeSpace:
    """Return all cells of a table.

    Raises:
        InvalidArgument: the table lacks architectures.
    """
    space = WholeSpace.of(_construction(table).make_envs(1))
    if space is None:
        raise InvalidArgument(f"the table {table!r} lacks architectures, so regrets are unknown; use a complete one.")
    return space


def _construction(table: str) -> Task:
    return Task(table, "NAS-Cell-v0", {"table": table})


def row_of(method: str, table: str, policy_seed: int | None, seed: int, trace: Trace, envs: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return one deployment's line of the record."""
    space = _whole_space(table)
    scores = score(trace, space.yardstick, BUDGET, CHECKPOINTS)
    seen = simple_regret(best_so_far(trace.signal), float(space.rewards.max()))
    return {
        "method": method,
        "table": table,
        "table_sha256": envs.evaluator.table.sha256,
        "policy_seed": policy_seed,
        "seed": seed,
        "version": nas_gym.__version__,
        "trained_on": None,
        "training_queries": 0,
        "regret": {str(queries): regret for queries, regret in scores.regret.items()},
        "signal_regret": {str(queries): float(seen[min(queries, len(seen)) - 1]) for queries in scores.regret},
        "unique_architectures": scores.diversity.unique,
    }


def record(path: Path, trained_on: str, tables: Sequence[str], policies: int, seeds: int) -> Iterator[dict[str, Any]]:
    """Run what the record lacks, one line at a time.

    Args:
        path: the record.
        trained_on: table of the training.
        tables: of the deployments.
        policies: trainings.
        seeds: deployments of every method on every table, shared out among the policies.
    """
    done = {(row["method"], row["table"], row["policy_seed"], row["seed"]) for row in read_rows(path)}

    def missing(method: str, policy_seed: int | None) -> list[tuple[str, int]]:
        wanted = [(table, FIRST_DEPLOYMENT_SEED + seed) for seed in range(seeds) for table in tables]
        return [(table, seed) for table, seed in wanted if (method, table, policy_seed, seed) not in done]

    for policy_seed in range(policies):
        # The deployments of one policy tell little more than a few of them; those of the others are all independent.
        if due := [one for one in missing(LEARNT, policy_seed) if one[1] < FIRST_DEPLOYMENT_SEED + seeds // policies]:
            policy = train(trained_on, policy_seed)
            for table, seed in due:
                trace, env = deploy(policy, seed, table=table)
                row = row_of(LEARNT, table, policy_seed, seed, trace, env)
                yield _kept(path, {**row, "trained_on": trained_on, "training_queries": TRAINING_QUERIES})
    for method in UNTRAINED:
        for table, seed in missing(method, None):
            if method == UNTRAINED[0]:
                trace, env = deploy(random_edits(seed), seed, table=table)
            else:
                trace, env = search(method, _construction(table), seed)
            yield _kept(path, row_of(method, table, None, seed, trace, env))


def _kept(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    append_row(path, row)
    return row


def regrets(
    rows: Sequence[Mapping[str, Any]], method: str, table: str, queries: int, kind: str = "regret"
) -> npt.NDArray[np.float64]:
    """Return the regrets of independent runs: one a policy, averaged over its deployments, or one a seed.

    Args:
        rows: of the record.
        method: whose.
        table: deployed on.
        queries: a checkpoint.
        kind: "regret", of test accuracy, or "signal_regret", of the validation accuracy that the search sees.
    """
    mine = [row for row in rows if (row["method"], row["table"]) == (method, table)]
    groups: dict[Any, list[float]] = {}
    for row in mine:
        unit = row["seed"] if row["policy_seed"] is None else ("policy", row["policy_seed"])
        groups.setdefault(unit, []).append(row[kind][str(queries)])
    return np.array([np.mean(values) for values in groups.values()], np.float64)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table: mean held-out regret in percentage points with its interval, by table and deployment query."""
    tables = list(dict.fromkeys(row["table"] for row in rows))
    checkpoints = (*CHECKPOINTS, BUDGET)
    heads = " | ".join(f"@{queries}" for queries in checkpoints)
    lines = [f"| Deployed on | Method | {heads} |", "|---" * (len(checkpoints) + 2) + "|"]
    rng = np.random.default_rng(0)
    for table in tables:
        for method in (LEARNT, *UNTRAINED):
            cells = []
            for queries in checkpoints:
                values = 100 * regrets(rows, method, table, queries)
                if len(values):
                    interval = mean_interval(values, rng)
                    cells.append(f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]")
            if cells:
                lines.append(f"| `{table}` | {method.replace('_', ' ')} | {' | '.join(cells)} |")
    policies = len({row["policy_seed"] for row in rows if row["policy_seed"] is not None})
    seeds = len({row["seed"] for row in rows})
    trained_on = " and ".join(f"`{name}`" for name in dict.fromkeys(row["trained_on"] for row in rows) if name)
    lines += [
        "",
        "Regret of test accuracy in percentage points after so many deployment queries; 95 % bootstrap intervals of "
        f"the mean over {policies} policies, each deployed {seeds // max(policies, 1)} times, and over {seeds} runs of "
        f"the other methods. Each policy was trained for {TRAINING_QUERIES:,} queries of {trained_on}, which are not "
        "counted here.",
        "",
        *_advantages(rows, tables, checkpoints, rng),
    ]
    return "\n".join(lines)


def _advantages(
    rows: Sequence[Mapping[str, Any]], tables: Sequence[str], checkpoints: Sequence[int], rng: np.random.Generator
) -> list[str]:
    """Return the table of how much better than random edits the trained policies are, with intervals."""
    heads = " | ".join(f"@{queries}" for queries in checkpoints)
    lines = [f"| Deployed on | Regret of random edits minus that of the policy | {heads} |"]
    lines.append("|---" * (len(checkpoints) + 2) + "|")
    for table in tables:
        for kind, label in (("signal_regret", "validation, which the search sees"), ("regret", "test")):
            cells = []
            for queries in checkpoints:
                mine, theirs = (100 * regrets(rows, method, table, queries, kind) for method in (LEARNT, UNTRAINED[0]))
                if len(mine) and len(theirs):
                    cells.append(shown(difference_interval(theirs, mine, rng), 2))
            lines.append(f"| `{table}` | {label} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m nas_benchmarks.transfer", description=__doc__)
    parser.add_argument("--train", default="digits", help="table of the training (default: digits)")
    parser.add_argument("--deploy", action="append", help="table of deployments, may be repeated (default: digits)")
    parser.add_argument("--policies", type=int, default=10, help="trainings (default: 10)")
    parser.add_argument("--seeds", type=int, default=100, help="deployments of every method (default: 100)")
    parser.add_argument("--record", type=Path, default=RECORD, help="file that finished deployments are appended to")
    parser.add_argument("--update", type=Path, help="file whose table is replaced")
    arguments = parser.parse_args()
    tables = arguments.deploy or ["digits"]
    for row in record(arguments.record, arguments.train, tables, arguments.policies, arguments.seeds):
        sys.stderr.write(
            f"{row['method']} {row['policy_seed']} on {row['table']} seed {row['seed']}: {row['regret']}\n"
        )
    text = markdown(read_rows(arguments.record))
    sys.stdout.write(text + "\n")
    if arguments.update is not None:
        replace_between(arguments.update, "transfer", text)


if __name__ == "__main__":
    main()
