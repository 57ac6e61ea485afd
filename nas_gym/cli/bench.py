"""``nas-gym bench``: suites of searches, their records, tuning, and regressions between records."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from nas_benchmarks import compare, tuning
from nas_benchmarks.recorded import SuiteRecord, baseline_rows, pack, rows_at
from nas_benchmarks.records import Row, TornRow
from nas_benchmarks.run import Done, Plan, cores, run_jobs
from nas_benchmarks.suites import Method, Suite, listed, missing_tables, suite_named
from nas_benchmarks.summary import Table, markdown, summary
from nas_gym.cli.console import errors, key_values, output
from nas_gym.errors import InvalidArgument

app = typer.Typer(
    help="Compare methods: run suites, tune agents, show and compare records.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Workers = Annotated[int | None, typer.Option(help="Worker processes; as many as there are cores by default.")]
Out = Annotated[Path | None, typer.Option(help="Directory of the record, continued where it exists.")]


@app.command("run")
def run(
    suite: Annotated[str, typer.Argument(help="smoke, main, nats or transfer.")],
    agent: Annotated[
        list[str] | None,
        typer.Option(help="Only this method or agent of the suite; or a newcomer, a name or module:Class. Repeatable."),
    ] = None,
    agent_arg: Annotated[
        list[str] | None, typer.Option(help="Setting key=value of the newcomer; with one --agent only.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task of the suite. Repeatable.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of every method on every task.")] = None,
    budget: Annotated[int | None, typer.Option(help="Queries of a run; makes another protocol.")] = None,
    workers: Workers = None,
    out: Out = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out tasks whose tables are not installed, and say so.")
    ] = False,
) -> None:
    """Run a suite, or what its record lacks, and show the comparison.

    Every finished run is one line of OUT/runs.jsonl (runs/bench-SUITE by default), so an interrupted command continues
    where it stopped. A newcomer is compared with the recorded runs of the suite that come with the package.

    Example: nas-gym bench run smoke

    Your own agent: nas-gym bench run main --agent my_module:MyAgent --seeds 20
    """
    chosen = suite_named(suite)
    if budget is not None:
        if budget < 1:
            raise InvalidArgument(f"--budget must be at least 1 query, got {budget}.")
        chosen = chosen.with_budget(budget)
    _importable_from_here()
    tasks, skipped = _available(chosen, task or [], allow_missing)
    methods = _methods(chosen, agent or [], key_values("--agent-arg", agent_arg or []))
    plan = Plan(chosen, methods, tasks, chosen.seeds if seeds is None else seeds, tuple(sys.argv))
    record = SuiteRecord(out or Path("runs") / f"bench-{suite}")
    count = _workers(workers)
    with _torn_rows_told():
        _check_definition(record, chosen)
        rows = record.rows()
        plan.check(record, rows)
        with record.alone():
            record.adopt(chosen)
            failed = _run(plan, record, rows, count)
        rows = record.rows()
    newcomers = bool(agent) and any(method not in chosen.methods for method in methods)
    _show(rows, chosen, record, skipped, newcomers)
    if failed:
        raise typer.Exit(1)


@app.command("show")
def show(
    record: Annotated[Path, typer.Argument(help="Directory of `bench run`, or file of `bench pack`.")],
    markdown_to: Annotated[Path | None, typer.Option("--markdown", help="Also write the page to this file.")] = None,
) -> None:
    """Show the comparison of a record.

    Example: nas-gym bench show runs/bench-smoke
    """
    with _torn_rows_told():
        rows = rows_at(record)
    tables = summary(rows)
    _print(tables)
    if markdown_to is not None:
        markdown_to.write_text(markdown(tables, record.name) + "\n", encoding="utf-8")


@app.command("pack")
def pack_record(
    record: Annotated[Path, typer.Argument(help="Directory of `bench run`.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
) -> None:
    """Pack a record into one file, as the recorded baselines of a suite are.

    Example: nas-gym bench pack runs/bench-main --out main.parquet
    """
    with _torn_rows_told():
        rows = rows_at(record)
    size = pack(rows, out)
    _say(f"{out}: {len(rows):,} runs, {size:,} bytes")


@app.command("tune")
def tune(
    agent: Annotated[str, typer.Argument(help="Agent with a space of settings, or module:Class.")],
    trials: Annotated[int, typer.Option(help="Configurations tried; the first is the default one.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the random search.")] = 0,
    workers: Workers = None,
    out: Annotated[Path | None, typer.Option(help="Log, one line a trial, continued where it exists.")] = None,
) -> None:
    """Tune an agent by random search, on synthetic landscapes; the digits are shown and not scored.

    Every agent gets the same number of tuning queries for the same number of trials. The log is an artefact.

    Example: nas-gym bench tune evolution --trials 20
    """
    _importable_from_here()
    log = out or Path("runs") / f"tune-{agent.replace(':', '_')}-{seed}.jsonl"
    study = tuning.Study.of(agent, trials, seed)
    with _torn_rows_told(), _bar(agent, trials, len(study.recorded(log))) as advance:
        for trial in study.run(log, _workers(workers)):
            advance(1, f"trial {trial['trial']}: {trial['score']:.4f}")
    _print([tuning.table(study.recorded(log))])
    best = study.best(log)
    arguments = "".join(f" --agent-arg {name}={tuning.as_argument(value)}" for name, value in best["settings"].items())
    _say(f"\nBest: trial {best['trial']}, {best['settings'] or 'the default settings'}")
    _say(f"Use it: nas-gym search --agent {agent}{arguments}")
    _say(f"        nas-gym bench run main --agent {agent}{arguments}")
    _say(f"Log: {log}, {sum(row['queries'] for row in study.recorded(log)):,} tuning queries")


@app.command("diff")
def diff(
    before: Annotated[Path, typer.Argument(help="Record: directory or packed file.")],
    after: Annotated[Path, typer.Argument(help="Record to compare with it.")],
    alpha: Annotated[float, typer.Option(help="Largest adjusted p-value of a regression.")] = 0.05,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where there is a regression.")] = False,
) -> None:
    """Find regressions between two records, per task and method.

    Example: nas-gym bench diff runs/old runs/new --check
    """
    if not 0 < alpha < 1:
        raise InvalidArgument(f"--alpha must lie between 0 and 1, got {alpha}.")
    with _torn_rows_told():
        found = compare.compare_records(rows_at(before), rows_at(after))
    _print([compare.table(found, alpha)])
    regressions = [one for one in found.differences if one.is_regression(alpha)]
    _say(f"{len(regressions)} significant regressions among {len(found.differences)} comparisons.")
    if check and regressions:
        raise typer.Exit(1)


# --- running ---------------------------------------------------------------------------------------


def _importable_from_here() -> None:
    """Let ``module:Class`` name a file of the current directory, as ``python -m`` does; workers inherit the path."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def _workers(asked: int | None) -> int:
    if asked is not None and asked < 1:
        raise InvalidArgument(f"--workers must be at least 1, got {asked}.")
    return cores() if asked is None else asked


def _available(suite: Suite, names: Sequence[str], allow_missing: bool) -> tuple[tuple[Any, ...], dict[str, str]]:
    """Return the tasks to run, and what is to be said of those whose tables are missing."""
    tasks = suite.chosen_tasks(names)
    missing = missing_tables(tasks) if allow_missing else {}
    there = tuple(task for task in tasks if task.name not in missing)
    if not there:
        raise InvalidArgument(f"no task of the suite {suite.name!r} can be run:\n{listed(missing)}")
    return there, missing


def _methods(suite: Suite, names: Sequence[str], settings: dict[str, Any]) -> tuple[Method, ...]:
    """Return the methods to run."""
    if not settings:
        return suite.chosen_methods(names)
    if len(names) != 1:
        raise InvalidArgument(f"--agent-arg needs exactly one --agent, got {len(names)}.")
    return (Method(names[0], settings),)


def _check_definition(record: SuiteRecord, suite: Suite) -> None:
    """Refuse another definition before anything else is looked at."""
    if record.definition() is not None:
        record.adopt(suite)


def _run(plan: Plan, record: SuiteRecord, rows: Sequence[Row], workers: int) -> list[Done]:
    """Do what the record lacks under a progress bar; return what failed."""
    jobs = plan.jobs(rows)
    total = sum(len(job.tasks) for job in jobs)
    wanted = plan.seeds * len(plan.methods) * len(plan.tasks)
    if total < wanted:
        _say(f"{wanted - total} of {wanted} runs are recorded in {record.path}.")
    failed = []
    with _bar(plan.suite.name, wanted, wanted - total) as advance:
        for done in _told_how_to_continue(run_jobs(jobs, record, workers), record):
            name = f"{done.job.method.name} on {', '.join(task.name for task in done.job.tasks)}"
            if done.message:
                failed.append(done)
                _complain(f"{name}, seed {done.job.seed}: {done.message}. Its other seeds are left out.")
            advance(len(done.job.tasks), name)
    if failed:
        _complain(f"{len(failed)} runs failed; tracebacks are in {record.failures}.")
    return failed


def _told_how_to_continue(runs: Iterator[Done], record: SuiteRecord) -> Iterator[Done]:
    """Say after Ctrl-C that the same command goes on."""
    try:
        yield from runs
    except KeyboardInterrupt:
        _complain(f"Finished runs are in {record.path}; the same command continues. Runs in flight are lost.")
        raise


@contextmanager
def _bar(name: str, total: int, done: int) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[last]}", markup=False, style="dim"),
    )
    with Progress(*columns, console=output) as progress:
        bar = progress.add_task(name, total=total, completed=done, last="")
        yield lambda count, last: progress.update(bar, advance=count, last=last)


@contextmanager
def _torn_rows_told() -> Iterator[None]:
    """Print what is said of rows that a kill left behind, in one line and always."""
    before = warnings.showwarning

    def tell(message: Any, category: type[Warning], *others: Any, **named: Any) -> None:  # noqa: ANN401
        if issubclass(category, TornRow):
            _complain(f"Note: {message}")
        else:
            before(message, category, *others, **named)

    with warnings.catch_warnings():
        warnings.simplefilter("always", TornRow)
        warnings.showwarning = tell
        yield


# --- showing ---------------------------------------------------------------------------------------


def _show(
    rows: Sequence[Row], suite: Suite, record: SuiteRecord, skipped: dict[str, str], with_baselines: bool
) -> None:
    """Print the comparison and write the page; what was left out stands on its first line."""
    first = f"Left out (--allow-missing): {', '.join(skipped)}." if skipped else ""
    if first:
        _complain(first)
    shown = list(rows)
    if with_baselines:
        joined, refusals = baseline_rows(suite, rows)
        shown = joined + shown
        for refusal in refusals:
            _complain(f"Note: {refusal}")
    if not shown:
        return
    tables = summary(shown)
    if with_baselines and len(shown) > len(rows):
        note = f"{len(shown) - len(rows)} of the {len(shown)} runs are the recorded baselines of nas-gym."
        tables[0] = replace(tables[0], notes=(*tables[0].notes, note))
    _print(tables)
    record.write_summary(markdown(tables, f"Suite {suite.name}", first))
    _say(f"\nRecord: {record.path} ({len(rows):,} runs); page: {record.path / 'summary.md'}")


def _print(tables: Sequence[Table]) -> None:
    for table in tables:
        shown = RichTable(
            title=table.title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
        )
        for number, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if number else "left", no_wrap=number == 0, overflow="fold")
        for row in table.rows:
            shown.add_row(*row)
        output.print()
        output.print(shown, markup=False)
        for note in table.notes:
            output.print(note, style="dim", markup=False, highlight=False)


def _say(text: str) -> None:
    output.print(text, markup=False, highlight=False, soft_wrap=True)


def _complain(text: str) -> None:
    errors.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
