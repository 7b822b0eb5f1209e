"""The commands of exploration."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer
import typer.core

from reckon.cli._commands import INTERRUPTED, TRAIN, Json, Quiet, Settings, app
from reckon.cli._show import print_grid, print_json
from reckon.errors import InputError


class _Explore(typer.core.TyperGroup):
    """`reckon explore ENV` is `reckon explore run ENV`."""

    # Typer carries a copy of Click, and which class a context is of depends on its version.
    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


exploring = typer.Typer(
    cls=_Explore,
    no_args_is_help=True,
    help="Explore an environment of Gymnasium with a bonus for what is new: `reckon explore ENV`.",
)
app.add_typer(exploring, name="explore", rich_help_panel=TRAIN)

_DIAGNOSED = ("contexts", "env", "frames", "seed")  # settings that `reckon explore diagnose` reads, and ppo.gamma
Env = Annotated[str | None, typer.Argument(metavar="ENV", help="Such as reckon/LavaTrail-v0, or module:name.")]


@exploring.command(name="run")
def run(
    env: Env = None,
    settings: Settings = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/explore-NAME if left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run that may be in the folder.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run an agent, and write the report. `run` may be left out: `reckon explore ENV`.

    KEY=VALUE sets bonus=e3b, contexts=10, frames=1000000, network=recurrent, ppo.lr=3e-4, novelty.ridge=1,
    env.length=12 and so on. Ctrl-C finishes the update and saves; `reckon explore --resume RUN` goes on there.
    """
    from reckon.explore import resume_explore, run_explore
    from reckon.recipe import explore_settings
    from reckon.report import write_report
    from reckon.runs import Run

    show: Literal["nothing", "lines", "auto"] = "nothing" if quiet else "lines" if as_json else "auto"
    if resume is not None:
        if env is not None or out is not None or overwrite:
            raise InputError("--resume goes on with the run as it is. Leave everything else out.")
        recipe = dict(Run.open(resume).recipe)
        name = recipe.pop("explore", None)
        if not isinstance(name, str):
            raise InputError(f"{resume} is no run of `reckon explore`. Name the folder that one printed.")
        given = explore_settings(given=recipe, name=str(resume / "recipe.yaml"))
        explored = resume_explore(name, given, resume, show=show)
    elif env is None or "=" in env:
        raise InputError("Name an environment (reckon explore reckon/LavaTrail-v0) or a run (--resume RUN).")
    else:
        folder = out or Path("runs") / f"explore-{env.rpartition('/')[2].rpartition(':')[2]}"
        explored = run_explore(env, explore_settings(settings or []), folder, overwrite=overwrite, show=show)
    page = write_report(explored.folder)
    if as_json:
        values = {name: value for name, value in vars(explored).items() if name != "folder"}
        print_json(run=str(explored.folder), report=str(page), **values)
    else:
        again = f"interrupted; go on with: reckon explore --resume {explored.folder}"
        state = "finished" if explored.finished else again
        typer.echo(f"{explored.folder}: {explored.updates} updates, {explored.frames:,} frames, {state}")
        ended = not math.isnan(explored.success)
        typer.echo(f"Success in the last updates: {f'{explored.success:.2f}' if ended else 'no episode ended'}")
        typer.echo(f"Report: {page}")
    if not explored.finished:
        raise typer.Exit(INTERRUPTED)


@exploring.command(name="diagnose")
def diagnose_command(
    env: Annotated[str, typer.Argument(metavar="ENV", help="Such as reckon/LavaTrail-v0, or module:name.")],
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Say which bonus the structure of an environment favors, and why.

    How much does the value of a state vary from context to context? Exact for reckon's own environments; for others
    estimated from a walk at random: contexts=10 says how many levels there shall be, frames how long it walks.
    """
    from reckon.explore import WALKED, diagnose
    from reckon.recipe import explore_settings

    given = explore_settings(settings or [], {"frames": WALKED})
    for key in (text.partition("=")[0].strip() for text in settings or []):
        if key.partition(".")[0] not in _DIAGNOSED and key != "ppo.gamma":
            raise InputError(
                f"A diagnosis does not read `{key}`. Leave it out: it reads {', '.join(_DIAGNOSED)} and ppo.gamma."
            )
    found = diagnose(
        env, contexts=given.contexts, env=dict(given.env), frames=given.frames, gamma=given.ppo.gamma, seed=given.seed
    )
    if found[0].exact and given.frames != WALKED:
        raise InputError(f"The diagnosis of {env} is exact: nobody walks, and `frames` is not read. Leave it out.")
    if as_json:
        print_json(env=env, keys=[vars(one) for one in found])
        return
    how = "exact" if found[0].exact else f"estimated from {given.frames:,} steps at random"
    typer.echo(f"{env}, {how}:")
    rows = [["key", "states", "contexts", "variance of a value", "spread", "favors"]]
    for one in found:
        rows.append(
            [one.key, str(one.states), str(one.contexts), f"{one.variance:.4f}", f"{one.spread:.2f}", one.favors]
        )
    print_grid(rows)
    for one in found:
        typer.echo(f"{one.key}: {one.why}")
