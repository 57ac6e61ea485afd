"""``nas-gym search``: one agent, one environment, one budget, one run directory; and its resumption."""

from __future__ import annotations

import functools
import inspect
import platform
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import gymnasium
import numpy as np
import numpy.typing as npt
import typer
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

import nas_agents
from nas_agents import Evaluated, RunResult, Sink
from nas_benchmarks.agent_state import FILE as AGENT_FILE
from nas_benchmarks.agent_state import write_state
from nas_benchmarks.figures import draw_search
from nas_benchmarks.published import published_search
from nas_benchmarks.records import EvaluationWriter, Row, RunDirectory, recorded
from nas_gym import __version__
from nas_gym.cli.console import errors, key_values, output
from nas_gym.cli.estimate import print_estimate, print_published
from nas_gym.envs.core.base import NASVectorEnv
from nas_gym.envs.core.construction import ConstructionVectorEnv
from nas_gym.errors import InvalidArgument, MissingExtra, ResumeError, UnknownName
from nas_gym.evaluators import trains_networks
from nas_gym.evaluators.core import Queries, Status, stream_key
from nas_gym.evaluators.decorators import Replayed
from nas_gym.registration import ENVIRONMENTS
from nas_gym.registry import resolve
from nas_gym.search_spaces.core import Batch, Encoding

REASONS = {
    "budget": "the budget was used",
    "exhausted": "the agent had nothing left to try",
    "time": "the time was up",
    "stalled": "the agent only repeated itself",
    "interrupted": "interrupted",
}


def search(
    env: Annotated[str, typer.Option(help="Environment id; see `nas-gym envs`.")] = "NAS-Cell-v0",
    agent: Annotated[
        str | None, typer.Option(help="Agent, or module:Class; see `nas-gym agents`. evolution by default.")
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Number of queries; 1,000 by default.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of agent and environment.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run directory; an existing one is refused.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Begin no new batch after so many seconds.")] = None,
    env_arg: Annotated[list[str] | None, typer.Option(help="Argument of the environment, key=value.")] = None,
    agent_arg: Annotated[list[str] | None, typer.Option(help="Setting of the agent, key=value.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Keep so many children in training at once, without waiting for the slowest.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the search of this run directory.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="'published': every value of the paper's search; other arguments win.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Train three children for one epoch each and say what a search costs.")
    ] = False,
) -> None:
    """Search for an architecture.

    Example: nas-gym search --env NAS-Cell-v0 --agent evolution --agent-arg preset=nats_bench --budget 500

    On your own images: nas-gym search --env NAS-Cell-Train-v0 --env-arg dataset=photos/ --env-arg image_size=64

    As published: nas-gym search --env NAS-MetaQNN-v0 --preset published --estimate

    After an interruption: nas-gym search --resume runs/my-run
    """
    if resume is not None:
        _continue(resume)
        return
    env_args, agent_args = key_values("--env-arg", env_arg or []), key_values("--agent-arg", agent_arg or [])
    published = None
    if preset is not None:
        published = published_search(env, preset, env_args.get("dataset"))
        env_args = {name: one.value for name, one in published.env_args.items()} | env_args
        agent = agent or published.agent
        budget = published.budget.value if budget is None else budget
        if agent == published.agent:
            agent_args = {name: one.value for name, one in published.agent_args.items()} | agent_args
    budget = 1000 if budget is None else budget
    settings = Settings(env, agent or "evolution", budget, seed, max_seconds, env_args, agent_args, workers)
    if published is not None:
        print_published(settings, published)
        if estimate:
            return
    elif estimate:
        print_estimate(settings)
        return
    path = out or settings.default_out()
    envs, searcher = settings.make(path)
    try:
        _search(settings, envs, searcher, RunDirectory.create(path, settings.provenance(envs)))
    finally:
        envs.close()


def _continue(path: Path) -> None:
    """Go on with the search of a run directory; print the summary of one that is finished.

    Raises:
        ResumeError: the directory is no run, or the search takes another course than its record.
    """
    directory = RunDirectory.existing(path)
    settings = Settings.of_run(directory)
    summary = directory.read_json("summary.json")
    if summary is not None and summary.get("ended") not in ("interrupted", "time"):
        print_summary(summary)
        output.print(f"Run directory: {path} (finished before)", highlight=False, markup=False, soft_wrap=True)
        return
    rows = directory.rows()
    envs, searcher = settings.make(path, len(rows))
    try:
        _search(settings, envs, searcher, directory, rows)
    finally:
        envs.close()


def _search(
    settings: Settings,
    envs: NASVectorEnv,
    searcher: nas_agents.Agent,
    directory: RunDirectory,
    rows: Sequence[Row] = (),
) -> None:
    """Search, write the summary and the figure, print.

    Args:
        settings: what was asked for.
        envs: the environments.
        searcher: the agent.
        directory: where everything is written.
        rows: queries of an earlier process, which are replayed first.
    """
    if rows:
        envs.wrap_evaluator(functools.partial(Replayed, record=recorded(rows), together=envs.num_envs))
    evaluations = directory.path / "evaluations.jsonl"
    writer = EvaluationWriter(evaluations, envs.space, envs.counter.repeat_query, rows)
    try:
        result = _run(settings, envs, searcher, writer, rows)
    finally:
        writer.close()
    summary = summarise(settings, envs, writer, result)
    directory.write_json("summary.json", summary)
    # A second Ctrl-C may end the search in the middle of learning, whose half is worth nothing.
    if result.reason != "interrupted":
        _keep_agent(directory.path / AGENT_FILE, searcher)
    _draw(settings, envs, writer, directory.path / "best_so_far.png")
    print_summary(summary)
    output.print(f"Run directory: {directory.path}", highlight=False, markup=False, soft_wrap=True)
    if result.reason == "interrupted":
        output.print(f"Continue with: nas-gym search --resume {directory.path}", highlight=False, markup=False)
        raise typer.Exit(130)


def _keep_agent(path: Path, searcher: nas_agents.Agent) -> None:
    """Write what the agent has learnt; one of somebody's own, whose state no file can hold, is only told of."""
    try:
        write_state(path, searcher.state_dict())
    except InvalidArgument as error:
        errors.print(f"Note: what the agent has learnt is not kept: {error}", markup=False, highlight=False)


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    Attributes:
        env: environment id.
        agent: agent name.
        budget: queries.
        seed: of agent and environment.
        max_seconds: time limit, None = none.
        env_args: keyword arguments of the environment.
        agent_args: fields of the agent's configuration.
        workers: children in training at once without a barrier; None = batches with one.
    """

    env: str
    agent: str
    budget: int
    seed: int
    max_seconds: float | None
    env_args: Mapping[str, Any]
    agent_args: Mapping[str, Any]
    workers: int | None = None

    def __post_init__(self) -> None:
        """Check what the command line cannot.

        Raises:
            UnknownName: no such environment.
            InvalidArgument: a budget below 1, a negative seed, no time.
        """
        if self.env not in ENVIRONMENTS and ":" not in self.env:
            raise UnknownName("environment", self.env, ENVIRONMENTS)
        for name in ("budget", "seed"):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), int):
                raise InvalidArgument(f"{name} must be an integer, got {getattr(self, name)!r}.")
        if self.budget < 1:
            raise InvalidArgument(f"--budget must be at least 1 query, got {self.budget}.")
        if self.seed < 0:
            raise InvalidArgument(f"--seed must not be negative, got {self.seed}.")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise InvalidArgument(f"--max-seconds must be positive, got {self.max_seconds}.")
        if self.workers is not None and self.workers < 1:
            raise InvalidArgument(f"--workers must be at least 1, got {self.workers}.")
        for name in ("num_envs", "autoreset_mode", "render_mode"):
            if name in self.env_args:
                raise InvalidArgument(f"--env-arg {name} is set by the search; leave it out.")

    @classmethod
    def of_run(cls, directory: RunDirectory) -> Settings:
        """Return what was asked for in an earlier search.

        Raises:
            ResumeError: the directory does not say.
        """
        config = directory.read_json("config.json") or {}
        try:
            return cls(**{field.name: config[field.name] for field in fields(cls)})
        except (KeyError, TypeError) as error:
            raise ResumeError(f"{directory.path / 'config.json'} does not describe a search: {error}.") from error

    def make(self, path: Path, rows_before: int = 0) -> tuple[NASVectorEnv, nas_agents.Agent]:
        """Create the environments and the agent.

        Args:
            path: the run directory, where evaluations that really train keep their store by default.
            rows_before: queries of an earlier process. Without a barrier their order cannot be repeated, so the
                agent draws on from another point of its random numbers.

        Raises:
            UnknownName: an unknown agent, setting, table, metric, ...
            InvalidArgument: a value outside its range, or an argument that the environment does not take.
        """
        agent = nas_agents.AGENTS[self.agent]
        if agent.drives_itself and self.workers is not None:
            raise InvalidArgument(f"{self.agent} cannot search without a barrier; leave --workers out.")
        config = nas_agents.make_config(agent, **self.agent_args)
        num_envs = min(nas_agents.episodes_at_once(config), self.budget) if self.workers is None else self.workers
        try:
            envs = gymnasium.make_vec(
                self.env,
                num_envs=num_envs,
                vectorization_mode="vector_entry_point",
                autoreset_mode="Disabled",
                **{**self._default_env_args(path), **self.env_args},
            ).unwrapped
        except TypeError as error:
            raise InvalidArgument(f"{self.env} refuses the arguments {dict(self.env_args)}: {error}.") from error
        if not isinstance(envs, NASVectorEnv):
            raise InvalidArgument(f"{self.env} is not a vector environment of nas-gym.")
        self._check_fit(envs, agent)
        seed = self.seed
        if self.workers is not None and rows_before:
            seed = stream_key(self.seed, "resumed", rows_before)
        return envs, agent(envs, seed, config)

    def _check_fit(self, envs: NASVectorEnv, agent: type[nas_agents.Agent]) -> None:
        """Check that the agent can search this environment.

        Raises:
            InvalidArgument: it proposes whole architectures where actions are edits, or there are several tasks.
        """
        if not envs.actions_are_decisions and not agent.drives_itself:
            able = ", ".join(name for name in nas_agents.AGENTS if nas_agents.AGENTS[name].drives_itself)
            raise InvalidArgument(
                f"{self.agent} proposes whole architectures, but an episode of {self.env} edits one; agents for it: "
                f"{able}."
            )
        if len(envs.task_names) > 1:
            raise InvalidArgument(
                f"a search has one task, whose best architecture it returns, but these arguments make "
                f"{len(envs.task_names)} ({', '.join(envs.task_names[:3])}, ...); train on several from Python, as "
                "nas_benchmarks.transfer does."
            )

    def _default_env_args(self, path: Path) -> dict[str, Any]:
        """Return arguments that follow from the search, for environments that take them."""
        if self.env not in ENVIRONMENTS:
            return {}
        takes = inspect.signature(resolve(ENVIRONMENTS[self.env].vector_entry_point)).parameters
        usual = takes["evaluator"].default if "evaluator" in takes else None
        if not trains_networks(self.env_args.get("evaluator", usual)):
            return {}
        found: dict[str, Any] = {"store": str(path / "store.sqlite")} if "store" in takes else {}
        if self.workers is not None and "workers" in takes:
            found["workers"] = self.workers
        return found

    def default_out(self) -> Path:
        """Return ``runs/<time>-<env>-<agent>-<seed>``."""
        moment = datetime.now().strftime("%Y%m%d-%H%M%S")
        names = (name.replace(":", "_").replace("/", "_") for name in (self.env, self.agent))
        return Path("runs") / "-".join((moment, *names, str(self.seed)))

    def provenance(self, envs: NASVectorEnv) -> dict[str, Any]:
        """Return what ``config.json`` records."""
        table = getattr(envs.evaluator, "table", None)
        return {
            **asdict(self),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "command": sys.argv,
            "repeat_query": envs.counter.repeat_query,
            "table_sha256": None if table is None else table.sha256,
            "versions": {"nas-gym": __version__, "gymnasium": gymnasium.__version__, "numpy": np.__version__},
            "python": platform.python_version(),
        }


class ProgressSink(Sink):
    """Moves the progress bar and shows the best so far: its reward beside the bar, its notation below."""

    def __init__(self, progress: Progress, writer: EvaluationWriter) -> None:
        """Attach to a bar with one task."""
        self.progress = progress
        self.writer = writer

    def on_episodes(self, evaluated: Evaluated) -> None:
        """Show the new state."""
        best = self.writer.best_reward
        text = "" if best is None else f"{best:.4f}"
        self.progress.update(self.progress.task_ids[0], completed=evaluated.usage.queries, best=text)

    def __rich__(self) -> Group:
        """Return what the terminal shows."""
        encoding = self.writer.best_encoding
        notation = "" if encoding is None else self.writer.space.to_string(encoding)
        return Group(self.progress, Text(notation, style="dim", no_wrap=True, overflow="ellipsis"))


class Interruption(Sink):
    """Lets the queries in flight finish when Ctrl-C is pressed, so that none is paid for and lost.

    The search then ends at the next moment when everything evaluated is on disk. A second Ctrl-C ends it at once.
    """

    def __init__(self) -> None:
        """Start without a wish to stop."""
        self._wanted = False
        self._before: Any = None

    @property
    def wants_stop(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._wanted

    def __enter__(self) -> Interruption:
        """Take over Ctrl-C, where this thread may."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        """Give Ctrl-C back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._wanted:
            raise KeyboardInterrupt
        self._wanted = True


def _run(
    settings: Settings,
    envs: NASVectorEnv,
    searcher: nas_agents.Agent,
    writer: EvaluationWriter,
    rows: Sequence[Row],
) -> RunResult:
    """Search with a progress bar; an interruption is a result like any other."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("best {task.fields[best]}", markup=False),
    )
    progress = Progress(*columns, console=output)
    progress.add_task(settings.agent, total=settings.budget, best="")
    shown = ProgressSink(progress, writer)
    interruption = Interruption()
    sinks = (writer, shown, interruption)
    with Live(get_renderable=shown.__rich__, console=output, refresh_per_second=8), interruption:
        try:
            if settings.workers is None:
                return nas_agents.run(searcher, envs, settings.budget, settings.seed, sinks, settings.max_seconds)
            invalid = Status.INVALID_ACTION.label
            taught = [
                nas_agents.Taught(tuple(row["encoding"]), row["status"] == invalid, row.get("fidelity")) for row in rows
            ]
            if not isinstance(envs, ConstructionVectorEnv):
                raise InvalidArgument(f"{settings.env} cannot search without a barrier; leave --workers out.")
            return nas_agents.run_without_barrier(
                searcher, envs, settings.budget, settings.seed, sinks, settings.max_seconds, taught
            )
        except KeyboardInterrupt:
            return RunResult("interrupted", envs.counter.usage())


def summarise(settings: Settings, envs: NASVectorEnv, writer: EvaluationWriter, result: RunResult) -> dict[str, Any]:
    """Return what ``summary.json`` holds, where held-out metrics of the best architecture appear for the first time."""
    usage = result.usage
    summary: dict[str, Any] = {
        "env": settings.env,
        "agent": settings.agent,
        "seed": settings.seed,
        "budget": settings.budget,
        "ended": result.reason,
        "queries": usage.queries,
        "unique_architectures": usage.unique_architectures,
        "environment_steps": usage.environment_steps,
        "simulated_seconds": usage.simulated_seconds,
        "wall_seconds": usage.real_seconds,
        "updates": result.updates,
        "best": None,
    }
    if writer.best_encoding is not None:
        summary["best"] = _describe(envs, writer.best_encoding, writer.best_reward, result.reason)
        if writer.best_fidelity is not None:
            summary["best"]["fidelity"] = writer.best_fidelity
    return summary


def _describe(envs: NASVectorEnv, encoding: Encoding, reward: float | None, reason: str) -> dict[str, Any]:
    evaluator = envs.evaluator
    standing = evaluator.standing(encoding)
    report = {}
    # Without a table the report is one more training, which nobody who interrupts wants to wait for.
    if standing is not None or reason != "interrupted":
        try:
            report = evaluator.report(encoding)
        except KeyboardInterrupt:
            report = {}
    described: dict[str, Any] = {
        "architecture": envs.space.to_string(encoding),
        "encoding": list(encoding),
        "reward": reward,
        "reported": {name: {"value": value, "unit": evaluator.metrics[name].unit} for name, value in report.items()},
        "standing": None,
    }
    if (artifact := evaluator.artifact(encoding)) is not None:
        described["artifact"] = artifact
    if standing is not None:
        described["standing"] = {**asdict(standing), "tied_with_best": standing.tied}
    return described


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the best architecture, unwrapped so that it can be copied, and a two-column table."""
    best = summary["best"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    output.print()
    output.print("Best architecture", style="bold")
    if best is None:
        output.print("none was evaluated successfully")
    else:
        output.print(best["architecture"], soft_wrap=True, markup=False, highlight=False)
        if "fidelity" in best:
            table.add_row("Best at fidelity", f"{best['fidelity']} epochs, the highest it was compared at")
        if best["standing"] is None:
            # Without a table the metrics are those of one more training, which may come out otherwise.
            table.add_row("Reward in the search", f"{best['reward']:.4f}")
        for name, entry in best["reported"].items():
            table.add_row(name.replace("_", " ").capitalize(), _with_unit(entry["value"], entry["unit"]))
        _add_standing(table, best["standing"])
    table.add_row("Queries", f"{summary['queries']:,} of {summary['budget']:,} ({REASONS[summary['ended']]})")
    table.add_row("Unique architectures", f"{summary['unique_architectures']:,}")
    # Only a table knows where an architecture stands among all.
    simulated = best is not None and best["standing"] is not None
    label = "Simulated training" if simulated else "Cost of the trainings"
    table.add_row(label, f"{summary['simulated_seconds']:,.0f} s")
    if summary.get("updates") is not None:
        table.add_row("Updates of the policy", f"{summary['updates']:,}")
    table.add_row("Wall time", f"{summary['wall_seconds']:.1f} s")
    output.print(table)


def _add_standing(table: Table, standing: Mapping[str, Any] | None) -> None:
    if standing is None:
        return
    name = standing["metric"].replace("_", " ")
    table.add_row("Rank", f"{standing['rank']:,} of {standing['size']:,} by {name}")
    table.add_row("Simple regret", f"{standing['regret']:.4f} in {name}")
    verdict = "yes" if standing["tied_with_best"] else "no"
    table.add_row("Tied with the best", f"{verdict} (one standard error is {standing['standard_error']:.4f})")


def _with_unit(value: float, unit: str) -> str:
    if unit == "fraction":
        return f"{value:.4f}"
    if unit == "bytes":
        return f"{value / 1e6:,.1f} MB"
    if unit == "count":
        return f"{value:,.0f}"
    return f"{1e3 * value:.3g} ms" if unit == "seconds" and value < 0.1 else f"{value:,.3f}"


def _draw(settings: Settings, envs: NASVectorEnv, writer: EvaluationWriter, path: Path) -> None:
    """Draw the figure; without matplotlib say which extra brings it."""
    if not writer.rewards:
        return
    title = f"{settings.agent} on {settings.env}, seed {settings.seed}"
    try:
        known = _whole_space(envs, writer.best_fidelity or envs.problem.fidelity)
        draw_search(path, writer.comparable_rewards, title, settings.agent, *known)
    except MissingExtra as error:
        errors.print(f"Note: {error}", markup=False, highlight=False)


def _whole_space(
    envs: NASVectorEnv, fidelity: int | None
) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float64] | None]:
    """Return the reward of every architecture at a fidelity and how probable random search is to draw it.

    None where the space is not wholly known or not deterministic.
    """
    evaluator, space = envs.evaluator, envs.space
    known = evaluator.reference(envs.objective.requires[0]) is not None
    if not known or not evaluator.deterministic or not space.dense:
        return None, None
    batch = Batch.of(space, list(space.enumerate()))
    fidelities = None if fidelity is None else np.full(len(batch), fidelity, np.int64)
    return envs.objective(evaluator.evaluate(Queries(batch, fidelities))), space.draw_probabilities(batch)
