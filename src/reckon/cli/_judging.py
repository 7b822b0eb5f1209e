"""The commands that learn judges and hold them against verdicts."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from reckon.cli._commands import (
    INTERRUPTED,
    JUDGE,
    TRAIN,
    Json,
    Quiet,
    Settings,
    Target,
    app,
    check_not_source,
    prefixed,
    split_name,
)
from reckon.cli._show import print_json, print_table
from reckon.errors import InputError
from reckon.types import Rng

if TYPE_CHECKING:
    from reckon.runs import Responses
    from reckon.types import Reward, Task

Source = Annotated[Path, typer.Argument(metavar="RUN_OR_FILE", help="A run, or a JSONL, CSV or Parquet of responses.")]
Judges = Annotated[
    list[str] | None,
    typer.Argument(metavar="[JUDGE]...", help="[NAME=]WHAT[,KEY=VALUE...]: a kind, file.py:name, or a folder."),
]
TaskName = Annotated[str | None, typer.Option("--task", help="Checks answers, and steps where it can: a kind of task.")]
TaskSettings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Settings of the task.")]
SplitName = Annotated[str | None, typer.Option("--split", help="Of a run: its evaluations on this split.")]
Seed = Annotated[int, typer.Option(help="Of bootstrap and subsets.")]


@app.command(name="fit", rich_help_panel=TRAIN)
def fit_model(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="sft, dpo, implicit-ce, outcome-bce, value, ...")],
    settings: Settings = None,
    data: Annotated[str, typer.Option(help="Rows: .jsonl, .csv, .parquet, a run, labels' folder, or a hub id.")] = "",
    model: Annotated[str, typer.Option(help="What to begin with: a built-in name, a folder or a hub id.")] = "",
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/fit-KIND if left out.")] = None,
    dev: Annotated[str | None, typer.Option(help="Rows to measure on; a tenth of the prompts if left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run that may be in the folder.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn from a file of rows: imitate, prefer, or make a judge that scores responses, steps or prefixes.

    Columns follow TRL: prompt, completion, label; prompt, chosen, rejected; prompt, completions, labels. KEY=VALUE sets
    lr=1e-6, epochs=2, lora.rank=16 and so on. The folder that is printed can be given to score, signals and recipes.
    """
    from reckon.fit import fit_command
    from reckon.recipe import fit_settings

    for name, given in (("--data", data), ("--model", model)):
        if not given:
            raise InputError(f"fit needs {name}: reckon fit {kind} --data rows.jsonl --model smollm2-135m")
    show: Literal["nothing", "lines", "auto"] = "nothing" if quiet else "lines" if as_json else "auto"
    folder = out or Path("runs") / f"fit-{kind}"
    done = fit_command(
        kind,
        data,
        model,
        folder,
        fit_settings(settings or []),
        dev_data=dev,
        overwrite=overwrite,
        resume=resume,
        show=show,
    )
    if as_json:
        print_json(fit=kind, run=str(done.folder), **{k: v for k, v in vars(done).items() if k != "folder"})
    else:
        for told in done.told:
            typer.echo(told)
        print_table({name: f"{value:.4g}" for name, value in sorted(done.metrics.items())})
        again = f"interrupted; the same command with --resume goes on (--out {done.folder})"
        typer.echo(f"{done.folder}: {done.steps} steps on {done.rows} rows, {'finished' if done.finished else again}")
    if not done.finished:
        raise typer.Exit(INTERRUPTED)


@app.command(rich_help_panel=JUDGE)
def score(
    source: Source,
    judges: Judges = None,
    out: Annotated[Path | None, typer.Option(help="Where to write: .parquet, .jsonl or .csv.")] = None,
    task: TaskName = None,
    task_settings: TaskSettings = None,
    split: SplitName = None,
    as_json: Json = False,
) -> None:
    """Let judges score responses: the same rows with a column for each stream.

    Judges are kinds of reward (`format`, `length,l_max=100`), functions (`own.py:brief`), folders that `reckon fit` has
    written, or folders of sequence-classification models; `NAME=` before one names its column.
    """
    from reckon.recipe import open_judges

    if not judges or out is None:
        raise InputError("score needs judges and --out: reckon score responses.jsonl format --out scored.parquet")
    _check_table("--out", out, source)
    responses, checker = _read(source, split, task, task_settings)
    opened = open_judges(judges, checker)
    scored = _scored(responses, opened, as_json)
    _write_scored(responses, scored, out)
    added = {name: signal for name, signal in scored.streams.items() if name.split("/")[0] in opened}
    if as_json:
        costs = {name: {"seconds": signal.seconds, "tokens": signal.read} for name, signal in added.items()}
        print_json(table=str(out), responses=len(scored.text), streams=costs)
        return
    print_table({name: f"{signal.seconds:.3g} s" for name, signal in added.items()})
    typer.echo(out)


@app.command(rich_help_panel=JUDGE)
def signals(
    source: Source,
    judges: Judges = None,
    out: Annotated[Path | None, typer.Option(help="The page; signals.html in the run or beside the file.")] = None,
    table: Annotated[Path | None, typer.Option(help="Also write the scored responses, as `score` does.")] = None,
    task: TaskName = None,
    task_settings: TaskSettings = None,
    split: SplitName = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Only this signal; may be given again.")] = None,
    probe_problems: Annotated[int, typer.Option("--probe", min=0, help="Problems to try empty answers on.")] = 32,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Which reward to trust, and where each is blind: ranking, calibration, best-of-N, steps, length, hacks, cost.

    Signals are the streams and number columns of the responses, and what JUDGES say of them; these are also shown empty
    answers, copied questions and the like, to see what they pay for.
    """
    from reckon.evaluate import bench_json, bench_text, check_verdicts, probe, signal_bench
    from reckon.recipe import open_judges
    from reckon.report import write_signals

    if table is not None:
        _check_table("--table", table, source)
    page = out or (source if source.is_dir() else source.parent) / "signals.html"
    check_not_source("--out", page, source)
    responses, checker = _read(source, split, task, task_settings)
    check_verdicts(responses)
    opened = open_judges(judges or [], checker)
    _check_signals("--only", only or [], responses, opened)
    scored, probes = responses, {}
    if opened:
        scored = _judged(responses, opened, as_json)
        if probe_problems:
            with results_alone(as_json):
                probes = probe(scored, opened, rng=Rng((seed, "probe")), problems=probe_problems, task=checker)
    if table is not None:
        _write_scored(responses, scored, table)
    bench = signal_bench(scored, rng=Rng((seed, "signals")), signals=only, probes=probes)
    write_signals(bench, page)
    if as_json:
        print_json(report=str(page), **bench_json(bench))
    else:
        typer.echo(f"{bench_text(bench)}\n\nReport: {page}")


@app.command(name="best-of-n", rich_help_panel=JUDGE)
def best_of_n(
    source: Source,
    judges: Judges = None,
    task: TaskName = None,
    task_settings: TaskSettings = None,
    split: SplitName = None,
    n: Annotated[str | None, typer.Option("--n", metavar="1,4,16", help="Samples to choose from; powers of 2.")] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]NUMBER", help="Of weighted votes: sigmoid(scale * score), or none: the score."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """What choosing among N responses buys: pass@1, votes, best of N by each signal, and the oracle, over N."""
    from reckon.recipe import open_judges
    from reckon.search import best_of_n_table, table_sizes

    try:
        sizes = None if n is None else [int(size) for size in n.split(",")]
    except ValueError:
        raise InputError(f"--n is {n!r}, but must be whole numbers with commas between: 1,4,16.") from None
    scales = dict(map(_scale, scale or []))
    responses, checker = _read(source, split, task, task_settings)
    table_sizes(responses.group, responses.right, sizes)  # refused before a judge is opened
    opened = open_judges(judges or [], checker)
    _check_signals("--scale", [name for name in scales if name], responses, opened)
    if opened:
        responses = _judged(responses, opened, as_json)
    known = {name: signal for name, signal in responses.streams.items() if not math.isnan(signal.read)}
    count = len(responses.text)
    table = best_of_n_table(
        responses.group,
        responses.right,
        responses.parsed,
        {name: signal.values for name, signal in responses.streams.items()},
        scale={
            name: scales[key]
            for name in responses.streams
            # The signal's own, its judge's, or that of all.
            if (key := next((key for key in (name, name.split("/")[0], "") if key in scales), None)) is not None
        },
        n=sizes,
        generated=None if responses.tokens is None else responses.lengths,
        scored={name: [signal.read / count] * count for name, signal in known.items()},
        seed=seed,
    )
    if as_json:
        print_json(**table.to_json())
    else:
        typer.echo(table.markdown())


@app.command(rich_help_panel=JUDGE)
def label(
    target: Target,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="The folder for the labels; the same one goes on.")] = None,
    task: TaskName = None,
    split: Annotated[str, typer.Option("--split", help="Whose problems: train, dev or test.")] = "train",
    n: Annotated[int, typer.Option("--n", min=1, help="How many problems.")] = 32,
    n_cov: Annotated[int, typer.Option("--n-cov", min=1, help="Responses to each problem to label.")] = 4,
    n_mc: Annotated[int, typer.Option("--n-mc", min=1, help="Completions of each prefix.")] = 8,
    splitter: Annotated[
        str | None, typer.Option("--splitter", metavar="REGEX", help="Where a step ends; at line ends if left out.")
    ] = None,
    first_pit: Annotated[
        bool, typer.Option("--first-pit", help="Follow wrong answers to where they went wrong.")
    ] = False,
    budget: Annotated[int | None, typer.Option(help="The most rollouts to draw.")] = None,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    as_json: Json = False,
) -> None:
    """Label the steps of a model's responses by completing them: how often is the answer right from here?

    The folder is what `reckon fit value --data` learns from. KEY=VALUE sets the task, or
    sampling.KEY=VALUE and model.KEY=VALUE.
    """
    from reckon.annotate import Budget, FirstPit, make_labels
    from reckon.recipe import open_target
    from reckon.runs import Progress
    from reckon.steps import Pattern

    ends = None if splitter is None else Pattern(splitter)
    _, made, load = open_target(target, task, prefixed(settings), "best")
    if made is None or out is None:
        raise InputError("label needs a task and --out: reckon label smollm2-135m --task running_sums --out labels")
    problems = made.problems(split_name(split))[:n]
    with Progress(len(problems), unit="problem", show="lines" if as_json else "auto") as bar:
        labels = make_labels(
            load(),
            made,
            problems,
            out,
            n_cov=n_cov,
            n_mc=n_mc,
            splitter=ends,
            hunt=FirstPit() if first_pit else None,
            budget=None if budget is None else Budget(rollouts=budget),
            seed=seed,
            tell=bar.update,
        )
    table = out / "labels.parquet"
    if as_json:
        print_json(table=str(table), labels=len(labels.records), cost=labels.cost)
    else:
        typer.echo(f"{labels}\n{table}")


def _scored(responses: Responses, judges: Mapping[str, Reward], as_json: bool) -> Responses:
    """The responses with what judges say of them, under a bar of progress."""
    from reckon.runs import Progress, score_responses

    total = len(responses.text) * len(judges)
    with Progress(total, unit="response", show="lines" if as_json else "auto") as bar, results_alone(as_json):
        return score_responses(responses, judges, progress=lambda done, _: bar.update(done))


def _judged(responses: Responses, judges: Mapping[str, Reward], as_json: bool) -> Responses:
    """As `_scored`, by those judges whose scores the file does not hold yet: they are what costs."""
    there = [name for name in judges if any(key.split("/")[0] == name for key in responses.streams)]
    for name in there:
        typer.echo(f"{name}: taken from the file, which has its scores. To ask it again, name it otherwise.", err=True)
    asked = {name: judge for name, judge in judges.items() if name not in there}
    return _scored(responses, asked, as_json) if asked else responses


def _check_table(option: str, table: Path, source: Path) -> None:
    """Raises InputError if no table can be written under this name, or it would stand in the place of its source."""
    check_not_source(option, table, source)
    if table.suffix.lower() not in (".parquet", ".jsonl", ".csv"):
        raise InputError(f"{option} is {table}; let its name end in .parquet, .jsonl or .csv.")


def _write_scored(responses: Responses, scored: Responses, table: Path) -> None:
    """Writes scored responses. CSV has no lists, so there what judges made of tokens stays out."""
    from reckon.runs import write_responses

    if table.suffix.lower() == ".csv":
        whole = {name: dataclasses.replace(signal, tokens=None, steps=None) for name, signal in scored.streams.items()}
        scored = dataclasses.replace(scored, tokens=responses.tokens, pieces=responses.pieces, streams=whole)
    write_responses(scored, table)


def _scale(spec: str) -> tuple[str, float | None]:
    """The signal, "" for all of them, and the scale that `[NAME=]NUMBER` or `[NAME=]none` gives it."""
    name, _, value = spec.rpartition("=")
    if value == "none":
        return name, None
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise InputError(
            f"--scale is {spec!r}, but must be a number above 0, or none where scores are probabilities; NAME= before "
            "it says for which signal."
        )
    return name, number


def _check_signals(option: str, names: Iterable[str], responses: Responses, judges: Mapping[str, Reward]) -> None:
    """Raises InputError for a name that no signal will have once the judges have said theirs."""
    for name in names:
        if name not in responses.streams and name.split("/")[0] not in judges:
            known = ", ".join(dict.fromkeys([*responses.streams, *judges])) or "none"
            raise InputError(f"{option} {name}: there is no signal {name!r}. Signals: {known}.")


def results_alone(as_json: bool) -> contextlib.AbstractContextManager[object]:
    """Keeps stdout to the one JSON object: what a reward function prints goes to stderr."""
    return contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()


def _read(
    source: Path, split: str | None, task: str | None, task_settings: list[str] | None
) -> tuple[Responses, Task | None]:
    """Responses, and the task that checks them: the run's own, or the one named."""
    from reckon.recipe import make_task, task_of
    from reckon.runs import label_responses, read_responses

    responses = read_responses(source, split=split)
    checker: Task | None = None
    if task is not None:
        checker = make_task(task, prefixed(task_settings))[1]
    elif task_settings:
        raise InputError(f"--set {task_settings[0]} is a setting of a task. Name one with --task.")
    elif source.is_dir():
        checker = task_of(source)
    return (responses if checker is None else label_responses(responses, checker)), checker
