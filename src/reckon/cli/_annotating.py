"""The command that makes labels out of cheap checks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from reckon.cli._commands import JUDGE, Json, app, check_not_source
from reckon.cli._judging import results_alone
from reckon.cli._show import print_json
from reckon.errors import InputError


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
    as_json: Json = False,
) -> None:
    """Label responses by several cheap verifiers that check each other, and tell how far they agree.

    Columns are prompt, answer, completion, and gold where the truth is known. What is written is what `reckon fit
    outcome-bce --data` learns from.
    """
    from reckon.annotate import AnnotationPolicy, annotate_file
    from reckon.recipe import open_verifiers

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
