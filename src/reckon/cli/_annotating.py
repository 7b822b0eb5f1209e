"""The commands that make labels out of cheap checks, and references out of base samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from reckon.cli._commands import (
    JUDGE,
    TRAIN,
    Json,
    Target,
    app,
    check_not_source,
    prefixed,
    split_name,
)
from reckon.cli._judging import Judges, TaskName, results_alone
from reckon.cli._show import print_json, print_table
from reckon.errors import InputError
from reckon.types import Rng


@app.command(rich_help_panel=JUDGE)
def annotate(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Questions, references, completions: .jsonl, ...")],
    verifier: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]WHAT[,KEY=VALUE...]", help="A checker, a kind of task, or file.py:name; again for more."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="TABLE", help="Labeled rows: .jsonl or .parquet.")] = None,
    policy: Annotated[str, typer.Option(help="Which labels are kept: unanimous, majority or any.")] = "unanimous",
    workers: Annotated[int, typer.Option(min=1, help="Calls of one verifier at a time.")] = 1,
    seconds: Annotated[float | None, typer.Option(help="The most one call may take; then it abstains.")] = None,
    steps_by: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Label steps instead: by the confidence of a judge of steps."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Label responses by several cheap verifiers that check each other, and tell how far they agree.

    Columns are prompt, answer, completion, and gold where the truth is known. What is written is what `reckon fit
    outcome-bce --data` learns from. With --steps-by, a folder of `reckon fit outcome-steps`, steps are labeled instead,
    as wrong where more than half of its confidence is lost (AutoPSV): what `reckon fit process --data` learns from.
    """
    from reckon.annotate import AnnotationPolicy, annotate_file
    from reckon.recipe import open_verifiers

    if steps_by is not None and out is not None and not verifier:
        check_not_source("--out", out, source)
        _annotate_steps(source, steps_by, out, as_json)
        return
    if steps_by is not None:
        raise InputError(
            "annotate --steps-by needs --out, and no --verifier: reckon annotate rows.jsonl --steps-by runs/judge "
            "--out steps.jsonl"
        )
    if not verifier or out is None:
        raise InputError(
            "annotate needs --verifier and --out: reckon annotate rows.jsonl --verifier exact --verifier number "
            "--out labeled.jsonl"
        )
    check_not_source("--out", out, source)
    opened = open_verifiers(verifier)
    with results_alone(as_json):
        report = annotate_file(source, out, opened, cast("AnnotationPolicy", policy), workers=workers, seconds=seconds)
    if as_json:
        pairs = [{**vars(pair), "agreement": pair.rate, "kappa": pair.kappa} for pair in report.pairs]
        print_json(table=str(out), kept_rate=report.kept_rate, **{**vars(report), "pairs": pairs})
    else:
        typer.echo(f"{report}\n{out}")


def _annotate_steps(source: Path, folder: Path, out: Path, as_json: bool) -> None:
    """Writes rows of steps with the labels that a judge's confidence gives them."""
    from reckon.annotate import check_kind, write_rows
    from reckon.rewards import ConfidenceRows, StepModel, load_judge
    from reckon.runs import Progress, read_responses, score_responses

    check_kind(out)
    responses, judge = read_responses(source), load_judge(folder)
    if not isinstance(judge, StepModel):
        raise InputError(f"--steps-by {folder} is no judge of steps. Name a folder of `reckon fit outcome-steps`.")
    labels = ConfidenceRows(judge)
    with Progress(len(responses.text), unit="response", show="lines" if as_json else "auto") as bar:
        score_responses(responses, {"confidence": labels}, progress=lambda done, _: bar.update(done))
    write_rows(out, labels.rows)
    steps = [right for row in labels.rows for right in cast("list[bool]", row["labels"])]
    if as_json:
        print_json(table=str(out), responses=len(labels.rows), steps=len(steps), right=sum(steps))
    else:
        typer.echo(f"{len(labels.rows)} responses, {len(steps)} steps, {sum(steps)} of them right\n{out}")


@app.command(rich_help_panel=TRAIN)
def references(
    target: Target,
    judges: Judges = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The references: .json.")] = None,
    task: TaskName = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of the task; sampling.KEY and model.KEY too."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Whose problems: train, dev or test.")] = "train",
    n: Annotated[int | None, typer.Option("--n", min=1, help="How many problems; all if left out.")] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Samples of each; 16 to 64 are usual.")] = 32,
    level: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of samples: how=quantile, q=0.85, per_prompt=true, model=ridge."),
    ] = None,
    answer: Annotated[str | None, typer.Option(help="Take what this answer earns, and draw no samples.")] = None,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    as_json: Json = False,
) -> None:
    """Draw what base samples earn, by reward and problem: the references of `centered` and `base_samples`.

    The model is the one that training will begin with; references are never made anew. Each JUDGE gets levels under
    its name, which is the `key` of a recipe.
    """
    from reckon.recipe import open_judges, open_references, open_target
    from reckon.rewards import Sum
    from reckon.runs import Progress

    if not judges or out is None:
        raise InputError(
            "references needs rewards and --out: reckon references smollm2-135m own.py:helpful --task running_sums "
            "--out references.json"
        )
    _check_references(out)
    _, made, load = open_target(target, task, prefixed(settings), "best")
    if made is None:
        raise InputError(f"{target} is no run, so name a task with --task (`reckon tasks` lists them).")
    rewards = Sum(open_judges(judges, made))
    problems = made.problems(split_name(split))[:n]
    store = open_references(level or [])
    policy = load()
    with Progress(len(problems), unit="problem", show="lines" if as_json else "auto") as bar, results_alone(as_json):
        if answer is None:
            rng = Rng((seed, "references"))
            store.fit_from(rewards, problems, policy, n=k, rng=rng, policy_id=target, task=made, progress=bar.update)
        else:
            store.fit_canned(rewards, problems, answer, tokenize=policy.tokenize, task=made)
    store.save(out)
    levels = {key: sorted(store.levels(key, problems)[0].tolist()) for key in store.keys}
    if as_json:
        told = {key: {"lowest": v[0], "median": v[len(v) // 2], "highest": v[-1]} for key, v in levels.items()}
        print_json(references=str(out), problems=len(problems), fitted_on=store.fitted_on, levels=told)
        return
    print_table({key: f"{v[0]:.4g} to {v[-1]:.4g}, median {v[len(v) // 2]:.4g}" for key, v in levels.items()})
    typer.echo(out)


def _check_references(out: Path) -> None:
    """Raises InputError for a file that references cannot be written to, before anything is drawn."""
    if out.suffix != ".json":
        raise InputError(f"--out is {out}, but references are written as JSON. Let its name end in .json.")
    if out.exists():
        raise InputError(
            f"--out {out} is there already, and references are never replaced: the target of a training that reads "
            "them would move. Name another file, or delete it."
        )
