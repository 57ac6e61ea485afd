"""How good the architectures are that are sampled: by Q-learning as its epsilon falls, and by random search."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nas_agents
import nas_gym  # noqa: F401 - registers the environments
from nas_agents.q_learning import QLearningConfig
from nas_benchmarks import exploration
from nas_benchmarks.expectations import expected_best_of
from nas_benchmarks.exploration import Phase, draw, epsilons, markdown, phases, read_run
from nas_gym import cli
from nas_gym.errors import InvalidArgument, MissingExtra, ResumeError
from nas_gym.search_spaces.core import Batch
from nas_gym.search_spaces.metaqnn import REDUCED, MetaQNNSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

# --- epsilons --------------------------------------------------------------------------------------

FALLING = ((1.0, 3), (0.5, 2), (0.1, 1))
NEW, OLD = True, False


def in_batches(first_seen: list[bool], batch_size: int) -> list[dict[str, Any]]:
    """Return rows of a run as far as they say which queries were played together."""
    return [
        {"first_seen": new, "batch": {"environment_steps": 10 * (1 + index // batch_size)}}
        for index, new in enumerate(first_seen)
    ]


@pytest.mark.parametrize(
    ("counted", "batch_size", "expected"),
    [
        # Before the batches 0, 2, 4 and 6 episodes were counted.
        pytest.param("episodes", 2, [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.1], id="episodes"),
        # Before the batches 0, 1, 3 and 3 new architectures were counted.
        pytest.param("architectures", 2, [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5], id="architectures"),
        pytest.param("episodes", 1, [1.0, 1.0, 1.0, 0.5, 0.5, 0.1, 0.1], id="episodes one by one"),
        pytest.param("architectures", 1, [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5], id="architectures one by one"),
        pytest.param("episodes", 50, [1.0] * 7, id="one batch"),
    ],
)
def test_an_epsilon_holds_for_a_batch(counted: str, batch_size: int, expected: list[float]) -> None:
    """It follows what was counted before the batch, whatever the batch counts itself."""
    config = QLearningConfig(epsilon_schedule=FALLING, counted=counted, batch_size=batch_size)
    assert epsilons(config, in_batches([NEW, OLD, NEW, NEW, OLD, OLD, NEW], batch_size)) == expected


def test_without_queries_there_is_no_epsilon() -> None:
    """A search that was stopped at once."""
    assert epsilons(QLearningConfig(), []) == []


class Watching(nas_agents.Sink):
    """Notes the epsilon of an agent before it learns from a batch, and which of its architectures were new."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.epsilons: list[float] = []
        self.first_seen: list[bool] = []

    def on_episodes(self, evaluated: nas_agents.Evaluated) -> None:
        self.epsilons += [self.agent.epsilon] * len(evaluated.batch)
        self.first_seen += evaluated.batch.first_seen.tolist()


@pytest.mark.parametrize("counted", ["episodes", "architectures"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_epsilons_are_those_that_the_agent_had(counted: str, batch_size: int) -> None:
    """In a search whose budget is no multiple of its batch, and which repeats itself."""
    envs: Any = gymnasium.make_vec(
        "NAS-MetaQNN-v0", num_envs=batch_size, evaluator="synthetic", max_depth=1, autoreset_mode="Disabled"
    ).unwrapped
    schedule = [[epsilon, 5] for epsilon in (1.0, 0.8, 0.6, 0.4, 0.2)]
    agent = nas_agents.make(
        "q_learning", envs, 0, None, batch_size=batch_size, counted=counted, epsilon_schedule=schedule
    )
    watching = Watching(agent)
    nas_agents.run(agent, envs, 30, 0, [watching])
    rows = in_batches(watching.first_seen, batch_size)
    assert (epsilons(agent.config, rows), OLD in watching.first_seen) == (watching.epsilons, True)


# --- phases ----------------------------------------------------------------------------------------

QUERIES = [
    {"row": row, "epsilon": epsilon, "status": status, "reward": reward}
    for row, (epsilon, status, reward) in enumerate(
        [
            (1.0, "ok", 0.2),
            (1.0, "crashed", -1.0),
            (1.0, "ok", 0.4),
            (1.0, "ok", 0.9),
            (0.1, "timeout", -1.0),
            (0.1, "ok", 0.8),
        ],
        start=1,
    )
]


def test_phases_begin_with_the_highest_epsilon() -> None:
    """In whatever order the queries are."""
    assert [phase.epsilon for phase in phases(QUERIES[::-1])] == [1.0, 0.1]


def test_failed_queries_are_left_out() -> None:
    """Their reward is no accuracy."""
    assert [phase.count for phase in phases(QUERIES)] == [3, 1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean", 0.5), ("best", 0.9), ("error", math.sqrt((0.3**2 + 0.1**2 + 0.4**2) / 2 / 3))],
)
def test_a_phase_is_worked_out_by_hand(name: str, value: float) -> None:
    """Of the rewards 0.2, 0.4 and 0.9."""
    assert getattr(phases(QUERIES)[0], name) == pytest.approx(value)


def test_a_single_query_has_no_error() -> None:
    """Nothing is known of its spread."""
    assert phases(QUERIES)[1] == Phase(0.1, 1, 0.8, pytest.approx(math.nan, nan_ok=True), 0.8)


def test_without_queries_there_is_no_phase() -> None:
    """Not even one without queries."""
    assert phases([]) == []


def test_the_table_has_a_line_per_phase() -> None:
    """Mean and error to three decimals, the best to four."""
    assert markdown(QUERIES).splitlines()[2:] == [
        "| 1 | 3 | 0.500 ± 0.208 | 0.9000 |",
        "| 0.1 | 1 | 0.800 ± nan | 0.8000 |",
    ]


# --- a run -----------------------------------------------------------------------------------------

SCHEDULE = "epsilon_schedule=[[1.0,10],[0.5,10],[0.1,1]]"
BUDGET = 30


def search(out: Path, *options: object) -> Path:
    """Search on a landscape in this process and return the run directory."""
    arguments = ("--env", "NAS-MetaQNN-v0", "--env-arg", "evaluator=synthetic", "--budget", BUDGET, "--out", out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nas-gym", "search", *map(str, (*arguments, *options))])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a search by Q-learning whose epsilon falls twice."""
    options = ("--agent", "q_learning", "--agent-arg", SCHEDULE, "--agent-arg", "batch_size=5")
    return search(tmp_path_factory.mktemp("exploration") / "run", *options)


@pytest.fixture(scope="module")
def lines(run: Path) -> list[dict[str, Any]]:
    """Return its record."""
    return read_run(run)


def test_the_record_begins_with_what_was_asked_for(lines: list[dict[str, Any]]) -> None:
    """Enough to search again."""
    expected = ("NAS-MetaQNN-v0", "q_learning", BUDGET, 0, {"evaluator": "synthetic"})
    assert tuple(lines[0][name] for name in ("env", "agent", "budget", "seed", "env_args")) == expected


def test_the_record_has_a_line_per_query(lines: list[dict[str, Any]]) -> None:
    """In their order."""
    assert [line["row"] for line in lines[1:]] == list(range(1, BUDGET + 1))


def test_every_query_has_its_epsilon(lines: list[dict[str, Any]]) -> None:
    """Two batches of the first, two of the second, and the rest."""
    assert [line["epsilon"] for line in lines[1:]] == [1.0] * 10 + [0.5] * 10 + [0.1] * 10


@pytest.mark.parametrize("name", ["architecture", "status", "reward"])
def test_a_query_is_recorded_as_the_search_has_it(run: Path, lines: list[dict[str, Any]], name: str) -> None:
    """Nothing is rounded."""
    rows = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [line[name] for line in lines[1:]] == [row[name] for row in rows]


def copy_with(run: Path, copy: Path, **changes: Any) -> Path:
    """Copy what is recorded of a run, with changes in its configuration."""
    copy.mkdir()
    config = json.loads((run / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **changes}))
    (copy / "evaluations.jsonl").write_bytes((run / "evaluations.jsonl").read_bytes())
    return copy


def test_where_the_answers_were_kept_is_not_recorded(run: Path, tmp_path: Path) -> None:
    """It has no influence on them."""
    arguments = {"evaluator": "synthetic", "store": "/home/somebody/store.sqlite"}
    assert read_run(copy_with(run, tmp_path / "copy", env_args=arguments))[0]["env_args"] == {"evaluator": "synthetic"}


@pytest.mark.parametrize("agent", ["evolution", "random_search"])
def test_agents_without_epsilon_are_refused(tmp_path: Path, agent: str) -> None:
    """By name."""
    with pytest.raises(InvalidArgument, match=f"{agent} has no epsilon"):
        read_run(search(tmp_path / "run", "--agent", agent))


def test_searches_without_a_barrier_are_refused(tmp_path: Path) -> None:
    """Nobody knows under which epsilon an architecture was built."""
    with pytest.raises(InvalidArgument, match="search without --workers"):
        read_run(search(tmp_path / "run", "--agent", "q_learning", "--workers", 2))


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """The message says what is missing."""
    with pytest.raises(ResumeError, match="is no run directory"):
        read_run(tmp_path)


def test_the_figure_is_a_png(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    """Drawn from the record alone."""
    pytest.importorskip("matplotlib")
    draw(tmp_path / "figure.png", lines[1:], "title")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named(
    lines: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingExtra, match=r"nas-gym\[plots\]"):
        draw(tmp_path / "figure.png", lines[1:], "title")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return what runs the module as a command with files in a temporary folder, and returns what it prints."""
    pytest.importorskip("matplotlib")

    def call(*options: object) -> str:
        files = ("--record", tmp_path / "record.jsonl", "--figure", tmp_path / "figure.png")
        monkeypatch.setattr(sys, "argv", ["exploration", *map(str, (*files, *options))])
        exploration.main()
        return capsys.readouterr().out

    return call


def test_the_command_prints_the_table(run: Path, lines: list[dict[str, Any]], command: Callable[..., str]) -> None:
    """Of the run that it records."""
    assert command("--run", run) == markdown(lines[1:]) + "\n"


def test_the_command_writes_record_and_figure(run: Path, command: Callable[..., str], tmp_path: Path) -> None:
    """Where it is told to."""
    command("--run", run)
    assert {path.name for path in tmp_path.iterdir()} == {"record.jsonl", "figure.png"}


def test_a_record_needs_no_run(run: Path, command: Callable[..., str]) -> None:
    """It is drawn again as it is."""
    assert command("--run", run) == command()


def test_the_command_updates_a_page(run: Path, command: Callable[..., str], tmp_path: Path) -> None:
    """Only between its marks."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- exploration:begin -->\nold\n<!-- exploration:end -->\nafter\n")
    table = command("--run", run, "--update", page)
    assert page.read_text() == f"before\n<!-- exploration:begin -->\n{table}<!-- exploration:end -->\nafter\n"


# --- random search ---------------------------------------------------------------------------------

SPACE = MetaQNNSpace(**REDUCED)


@pytest.fixture(scope="module")
def drawn_with() -> dict[tuple[int, ...], float]:
    """Return the probability of every architecture of the reduced MetaQNN space."""
    encodings = list(SPACE.enumerate())
    return dict(zip(encodings, SPACE.draw_probabilities(Batch.of(SPACE, encodings)).tolist(), strict=True))


def test_the_probabilities_of_a_space_sum_to_one(drawn_with: dict[tuple[int, ...], float]) -> None:
    """Of all 6,734 chains."""
    assert (len(drawn_with), math.fsum(drawn_with.values())) == (6734, pytest.approx(1.0, abs=1e-12))


def test_probabilities_are_worked_out_by_hand(drawn_with: dict[tuple[int, ...], float]) -> None:
    """First 4 convolutions, GAP and SM may come; behind a convolution 3 poolings, too; behind GAP only SM."""
    texts = ("SM", "GAP SM", "C(8,1,1) SM")
    found = [drawn_with[SPACE.from_string(text)] for text in texts]
    assert found == pytest.approx([1 / 6, 1 / 6, 1 / 6 * 1 / 9])


def test_random_search_draws_as_often_as_that(drawn_with: dict[tuple[int, ...], float]) -> None:
    """Every chain that is expected more than 20 times in 10,000 draws, within five deviations."""
    rng, draws = np.random.default_rng(0), 10_000
    counts = dict.fromkeys(drawn_with, 0)
    for _ in range(draws):
        counts[SPACE.sample(rng)] += 1
    frequent = {encoding: chance for encoding, chance in drawn_with.items() if draws * chance > 20}
    far = [
        SPACE.to_string(encoding)
        for encoding, chance in frequent.items()
        if abs(counts[encoding] - draws * chance) > 5 * math.sqrt(draws * chance * (1 - chance))
    ]
    assert (len(frequent) > 10, far) == (True, [])


def test_cells_are_drawn_uniformly() -> None:
    """Every decision has the same choices in all of them."""
    space = NASBench201Space()
    batch = Batch.of(space, [(0,) * 6, (4, 3, 2, 1, 0, 1)])
    assert space.draw_probabilities(batch).tolist() == pytest.approx([5.0**-6] * 2)


weighted = st.lists(st.tuples(st.integers(0, 5), st.floats(0.05, 1)), min_size=1, max_size=4)


@given(weighted, st.integers(1, 4))
def test_the_expectation_of_unequal_draws_equals_enumeration(pairs: list[tuple[int, float]], queries: int) -> None:
    """The mean of the best over all sequences of draws, each weighted by its probability, ties included."""
    values = np.array([float(value) for value, _ in pairs])
    chances = np.array([weight for _, weight in pairs])
    chances /= chances.sum()
    brute = sum(
        max(values[index] for index in sequence) * math.prod(chances[index] for index in sequence)
        for sequence in itertools.product(range(len(pairs)), repeat=queries)
    )
    assert expected_best_of(values, np.array([queries]), chances)[0] == pytest.approx(brute)


def test_an_improbable_best_is_found_late() -> None:
    """By hand: 1 - 0.9 ** n instead of 1 - 0.5 ** n."""
    found = expected_best_of(np.array([0.0, 1.0]), np.array([1, 2, 10]), np.array([0.9, 0.1]))
    assert found == pytest.approx([0.1, 0.19, 1 - 0.9**10])


def test_equal_probabilities_are_the_default() -> None:
    """Told or not."""
    values, queries = np.array([0.3, 0.1, 0.4, 0.1]), np.array([1, 3, 50])
    told = expected_best_of(values, queries, np.full(4, 0.25))
    assert expected_best_of(values, queries) == pytest.approx(told)


def test_what_cannot_be_drawn_does_not_count() -> None:
    """However good it is."""
    found = expected_best_of(np.array([0.2, 0.9, 0.4]), np.array([1, 100]), np.array([0.5, 0.0, 0.5]))
    assert found == pytest.approx([0.3, 0.4])
