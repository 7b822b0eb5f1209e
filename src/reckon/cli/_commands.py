"""The commands, and what becomes of their errors."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from reckon import __version__
from reckon.cli._show import (
    answer_rows,
    cost_rows,
    print_answers,
    print_evaluation,
    print_grid,
    print_json,
    print_table,
    problem_rows,
    sentence,
)
from reckon.errors import InputError, ReckonError
from reckon.types import Problem, Rng, Split

if TYPE_CHECKING:
    from reckon.recipe import Step

INTERRUPTED = 130
TRAIN, JUDGE, PLAN, STUDY = "Train", "Judge", "Plan", "Study"  # panels of the help

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
models = typer.Typer(help="List, fetch, remove and export models.", no_args_is_help=True)
app.add_typer(models, name="models", rich_help_panel=TRAIN)

Settings = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Target = Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="A built-in model, a folder, a hub id, or a run.")]
Kind = Annotated[str | None, typer.Option("--task", help="Kind of task (see `reckon tasks`); a run knows its own.")]
StepName = Annotated[str, typer.Option(help="Of a run: which checkpoint. `best`, `last` or a number.")]
SplitName = Annotated[str, typer.Option("--split", help="train, dev or test.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"reckon {__version__}")
        raise typer.Exit


@app.callback()
def reckon(
    _: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version.")] = False,
) -> None:
    """What should the reward be, and what did it buy me?"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; `arguments` are those of the process if left out."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="reckon")
    except ReckonError as error:
        print(f"reckon: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


@app.command(rich_help_panel=TRAIN)
def train(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="A recipe's file.")] = None,
    settings: Settings = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder, instead of the recipe's `out`.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run that may be in the folder.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model as a recipe says.

    Settings of the recipe are changed with KEY=VALUE, for example steps=20 or reward.correct.weight=0.5. Ctrl-C
    finishes the step and saves; `reckon train --resume RUN` goes on exactly there.
    """
    from reckon.recipe import Recipe, resume_run, run_recipe
    from reckon.report import write_report

    given = list(settings or [])
    if recipe is not None and resume is not None and "=" in str(recipe) and not recipe.exists():
        recipe, given = None, [str(recipe), *given]
    show: Literal["nothing", "lines", "auto"] = "nothing" if quiet else "lines" if as_json else "auto"
    if resume is not None:
        if out is not None or overwrite:
            raise InputError("--resume goes on in the run's own folder. Leave --out and --overwrite out.")
        source = recipe or resume / "recipe.yaml"
        outcome = resume_run(resume, Recipe.load(source, given) if recipe or given else None, show=show)
    elif recipe is None:
        raise InputError("Name a recipe (reckon train recipes/largest-smollm2.yaml) or a run (--resume RUN).")
    else:
        checked = Recipe.load(recipe, [*given, *([] if out is None else [f"out={json.dumps(str(out))}"])])
        outcome = run_recipe(checked, overwrite=overwrite, show=show)
    page = write_report(outcome.folder)
    if as_json:
        print_json(
            run=str(outcome.folder),
            steps=outcome.steps,
            finished=outcome.finished,
            comparison=outcome.comparison,
            idle=outcome.idle,
            stopped=outcome.stopped,
            report=str(page),
        )
    else:
        if outcome.comparison is not None:
            typer.echo(f"Held-out problems: {outcome.comparison}")
        state = "stopped" if outcome.stopped else "interrupted"
        state = "finished" if outcome.finished else f"{state}; go on with: reckon train --resume {outcome.folder}"
        typer.echo(f"{outcome.folder}: {outcome.steps} steps, {state}")
        if outcome.stopped:
            typer.echo(f"Stopped by {outcome.stopped}.")
        if 2 * outcome.idle > outcome.steps:
            typer.echo(
                f"In {outcome.idle} of {outcome.steps} steps all answers to each problem earned the same, which "
                "teaches nothing: choose easier or harder problems, more answers, or another reward."
            )
        typer.echo(f"Report: {page}")
    if not outcome.finished:
        raise typer.Exit(INTERRUPTED)


@app.command(name="eval", rich_help_panel=JUDGE)
def evaluate_command(
    target: Target,
    settings: Settings = None,
    task: Kind = None,
    split: SplitName = "test",
    n: Annotated[int | None, typer.Option("--n", help="How many problems; all if left out.")] = None,
    k: Annotated[int, typer.Option("--k", help="Samples per problem, for pass@k and majority vote.")] = 1,
    greedy: Annotated[bool, typer.Option("--greedy/--sample", help="Likeliest answers, or samples.")] = True,
    step: StepName = "best",
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    compare: Annotated[Path | None, typer.Option(metavar="TABLE", help="An earlier evaluation of the same.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="TABLE", help="Write the answers as Parquet.")] = None,
    as_json: Json = False,
) -> None:
    """Examine a model or a run on a task's held-out problems.

    KEY=VALUE sets the task (count=7), or sampling.KEY=VALUE and model.KEY=VALUE. With --compare the same problems are
    compared with an earlier table (from --out, or RUN/evals/*.parquet) by McNemar's exact test.
    """
    from reckon.evaluate import compare as compare_evaluations
    from reckon.evaluate import evaluate
    from reckon.recipe import open_target, read_evaluation, write_evaluation
    from reckon.runs import Progress

    if out is not None and out.suffix != ".parquet":
        raise InputError(f"--out is {out}, but the table is written as Parquet. Let its name end in .parquet.")
    if compare is not None and k > 1 and not greedy:
        raise InputError("--compare takes one answer to each problem. Leave --sample or --k out.")
    earlier = None if compare is None else read_evaluation(compare)
    part, made, load = open_target(target, task, prefixed(settings), checkpoint(step))
    if part is None or made is None:
        raise InputError(f"{target} is no run, so name a task with --task (`reckon tasks` lists them).")
    total = n if n is not None else len(made.problems(split_name(split)))
    policy = load()
    with Progress(total, unit="problem", show="lines" if as_json else "auto") as bar:
        found = evaluate(
            policy,
            made,
            rng=Rng((seed, "evaluate")),
            split=split_name(split),
            n=n,
            k=k,
            greedy=greedy,
            progress=lambda done, _: bar.update(done),
        )
    if out is not None:
        write_evaluation(found, out)
    comparison = None if earlier is None else compare_evaluations(earlier, found)
    if as_json:
        print_json(
            model=target,
            task=part.plain(),
            split=split,
            metrics=found.metrics,
            comparison=comparison,
            table=None if out is None else str(out),
        )
        return
    print_evaluation(found)
    if comparison is not None:
        typer.echo(f"Compared with {compare}: {comparison}")


@app.command(rich_help_panel=JUDGE)
def sample(
    target: Target,
    settings: Settings = None,
    task: Kind = None,
    prompt: Annotated[str | None, typer.Option(help="Something of your own to answer, instead of a task.")] = None,
    split: SplitName = "dev",
    n: Annotated[int, typer.Option("--n", min=1, help="How many problems.")] = 3,
    k: Annotated[int, typer.Option("--k", min=1, help="Answers to each.")] = 1,
    greedy: Annotated[bool, typer.Option("--greedy/--sample", help="Likeliest answers, or samples.")] = False,
    step: StepName = "best",
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    as_json: Json = False,
) -> None:
    """Watch a model answer: problems of a task, with verdicts, or a prompt of your own."""
    from reckon.recipe import open_target

    if prompt is not None and task is not None:
        raise InputError("--prompt and --task exclude each other: give one of them.")
    _, made, load = open_target(target, task, prefixed(settings), checkpoint(step))
    if prompt is not None:
        problems, made = [Problem(id="prompt", prompt=prompt)], None
    elif made is not None:
        problems = list(made.problems(split_name(split))[:n])
    else:
        raise InputError(f"{target} is no run: name a task with --task, or give it a --prompt.")
    policy = load()
    rollouts = policy.greedy(problems) if greedy else policy.sample(problems, k, Rng((seed, "sample")))
    rows = answer_rows(rollouts, made)
    if as_json:
        print_json(model=target, answers=rows)
    else:
        print_answers(rows)


@app.command(rich_help_panel=TRAIN)
def tasks(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="Describe this one and show problems.")] = None,
    settings: Settings = None,
    split: SplitName = "train",
    n: Annotated[int, typer.Option("--n", min=0, help="How many problems to show.")] = 3,
    as_json: Json = False,
) -> None:
    """List the tasks, or describe one and show some of its problems."""
    from reckon.recipe import KINDS, describe, load_kind, make_task
    from reckon.recipe import settings as settings_of

    if kind is None:
        known = {name: sentence(load_kind("task", name)) for name in KINDS["task"]}
        if as_json:
            print_json(tasks=known)
        else:
            print_table(known)
        return
    part, made = make_task(kind, prefixed(settings))
    posed = made.problems(split_name(split))
    rows = problem_rows(made, posed[:n])
    if as_json:
        print_json(task=part.plain(), what=inspect.getdoc(part.target), problems=rows)
        return
    typer.echo(f"{kind}: {inspect.getdoc(part.target)}\n\nSettings:")
    values, types = part.plain(), settings_of(part.target)
    print_table({name: f"{json.dumps(values[name])}  ({describe(s.annotation)})" for name, s in types.items()})
    if not posed:
        typer.echo(f"\nThere are no problems in the split {split} (--split chooses another).")
    for row in rows:
        typer.echo(f"\n> {row['prompt']}\n  answer: {row['answer']}")
        if row["solution"] is not None:
            typer.echo("  worked: " + str(row["solution"]).replace("\n", "\n          "))


@app.command(rich_help_panel=JUDGE)
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    out: Annotated[Path | None, typer.Option(help="Where to write, instead of RUN/report.html.")] = None,
    as_json: Json = False,
) -> None:
    """Write the page that shows what a run came to: one HTML file."""
    from reckon.report import write_report

    page = write_report(run, out)
    if as_json:
        print_json(report=str(page))
    else:
        typer.echo(page)


@app.command(rich_help_panel=JUDGE)
def costs(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs' folders; the first is the measure.")],
    as_json: Json = False,
) -> None:
    """Print what a step of each run takes by part, in seconds and in tokens that models compute.

    Of several runs the others are held against the first: reckon costs runs/rloo runs/prime.
    """
    from reckon.report import costs as costs_of

    first, *others = found = [costs_of(run) for run in runs]
    times = [(run.run, *run.against(first)) for run in others]
    if as_json:
        print_json(runs=found, times=[{"run": run, "seconds": s, "tokens": n} for run, s, n in times])
        return
    print_grid(cost_rows(found))
    for run, seconds, tokens in times:
        typer.echo(
            f"A step of {run} takes {seconds:.2f} times the seconds and computes {tokens:.2f} times the tokens of one "
            f"of {first.run}."
        )


@app.command(rich_help_panel=STUDY)
def studies(as_json: Json = False) -> None:
    """List the papers' experiments that can be run."""
    from reckon.studies import STUDIES

    if as_json:
        print_json(studies=dict(STUDIES))
    else:
        print_table(dict(STUDIES))


@app.command(rich_help_panel=STUDY)
def study(
    name: Annotated[str, typer.Argument(help="One of `reckon studies`.")],
    fast: Annotated[bool, typer.Option("--fast", help="Run every line in seconds; no verdicts.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where results go; results/NAME if left out.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="0,1,2", help="Instead of the study's own.")] = None,
    as_json: Json = False,
) -> None:
    """Run a paper's experiment and say which of its claims are seen. Goes on where it was stopped."""
    from reckon.studies import run_study

    try:
        chosen = None if seeds is None else [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise InputError(f"--seeds is {seeds!r}, but must be whole numbers with commas between: 0,1,2.") from None
    folder = out or Path("results") / (f"{name}-fast" if fast else name)
    run_study(name, folder, fast=fast, seeds=chosen, json=as_json)


@models.command(name="list")
def list_models(as_json: Json = False) -> None:
    """List the built-in models, and which of them are on this machine."""
    from reckon.models import listing

    rows = listing()
    if as_json:
        print_json(models=rows)
        return
    print_table(
        {
            str(row["name"]): f"{row['what']} ({row['license']}); "
            + ("not fetched" if row["folder"] is None else f"{row['folder']}, {int(row['bytes'] or 0) / 1e6:.0f} MB")
            for row in rows
        }
    )


@models.command()
def fetch(name: Annotated[str, typer.Argument(help="One of `reckon models list`.")], as_json: Json = False) -> None:
    """Fetch a built-in model, so that it works offline."""
    from reckon.models import fetch as fetch_model

    folder = fetch_model(name)
    if as_json:
        print_json(model=name, folder=str(folder))
    else:
        typer.echo(folder)


@models.command()
def remove(name: Annotated[str, typer.Argument(help="One of `reckon models list`.")], as_json: Json = False) -> None:
    """Delete a built-in model from this machine."""
    from reckon.models import remove as remove_model

    removed = remove_model(name)
    if as_json:
        print_json(model=name, removed=removed)
    else:
        typer.echo(f"{name} is removed." if removed else f"{name} was not there.")


@models.command()
def export(
    target: Target,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it; empty or not there yet.")],
    step: StepName = "best",
    as_json: Json = False,
) -> None:
    """Write a model, or what a run made of it, as a plain Hugging Face folder; adapters are merged.

    A critic of its own that a run trained goes into the folder critic/ inside, with its value head.
    """
    from reckon.recipe import load_critic, open_target

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty. Name a folder that is, or that is not there yet.")
    *_, load = open_target(target, None, [], checkpoint(step))
    load().save_pretrained(folder)
    critic = load_critic(target, checkpoint(step)) if (Path(target) / "recipe.yaml").is_file() else None
    if critic is not None:
        critic.save_pretrained(folder / "critic")
    if as_json:
        print_json(model=target, folder=str(folder), critic=None if critic is None else str(folder / "critic"))
    else:
        typer.echo(folder)


def prefixed(settings: Sequence[str] | None) -> list[str]:
    """Settings of commands about a task: count=7 is task.count=7, and sampling.* and model.* are what they say."""
    rooms = ("task", "sampling", "model")
    return [
        s if s.split("=")[0].partition(".")[0] in rooms and "." in s.split("=")[0] else f"task.{s}"
        for s in settings or []
    ]


def split_name(name: str) -> Split:
    """The split that --split names."""
    if name not in ("train", "dev", "test"):
        raise InputError(f"--split is {name!r}, but must be train, dev or test.")
    return cast("Split", name)


def checkpoint(name: str) -> Step:
    """The checkpoint that --step names."""
    if name in ("best", "last"):
        return cast("Step", name)
    if not name.isdecimal():
        raise InputError(f"--step is {name!r}, but must be best, last or the number of a checkpoint.")
    return int(name)


def check_not_source(option: str, target: Path, source: Path) -> None:
    """Raises InputError if a file to be written is what is read, or a table of the run that is."""
    target, source = target.expanduser(), source.expanduser()
    tables = [(source / part).resolve() for part in ("rollouts", "evals")] if source.is_dir() else []
    inside = any(folder in target.resolve().parents for folder in tables)
    if inside or (target.exists() and source.exists() and target.samefile(source)):
        raise InputError(f"{option} {target} is what is read, and would be overwritten. Name another file to write.")
