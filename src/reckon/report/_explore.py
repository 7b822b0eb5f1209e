"""The page of a run of `reckon explore`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from reckon import __version__
from reckon.report._budget import budget, command
from reckon.report._curves import Figure, Line, curves
from reckon.report._explore_album import Album, read_album
from reckon.report._explore_pictures import episode_figure, maps_figure
from reckon.report._html import Html, content_policy, count, duration, embed, inline, join, share, table, tag
from reckon.report._read import Folder
from reckon.report._sections import curves_section
from reckon.types import Json, Metrics

RECENT = 10  # updates whose episodes make the headline
_SINGLE = (  # title, unit, metric, whether it is a share
    ("Return of an episode", "reward, bonus left out", "episode/return", False),
    ("Length of an episode", "steps", "episode/length", False),
    ("Bonus as it is paid", "mean over actions", "bonus/paid", False),
    ("Share of the bonus", "% of all that is paid", "bonus/share", True),
    ("Cut by the clip", "% of actions", "bonus/clipped", True),
    ("Entropy", "nats per action", "policy/entropy", False),
    ("Explained by the critic", "of the variance of returns", "value/explained_variance", False),
    ("Moved by the update", "nats per action", "policy/kl_sampled", False),
    ("Clipped", "% of actions", "policy/clip_fraction", True),
    ("Gradient norm", "L2", "policy/grad_norm", False),
)
_SECTIONS = (
    ("result", "Result", "Result"),
    ("curves", "Curves", "Learning curves"),
    ("maps", "Where it was", "Where the agents were"),
    ("episodes", "Episodes", "Episodes, and what they were paid"),
    ("recipe", "Recipe", "Recipe, environment, reproduction"),
)


def render_explore(folder: Folder) -> str:
    """The page as text.

    Raises:
        RunError: the run's album is damaged.
    """
    css, theme = _file("page.css") + _file("explore.css"), _file("theme.js")
    scripts = "\n".join(_file(name) for name in ("base.js", "curves.js"))
    album, drawn = read_album(folder.path), _figures(folder.metrics)
    made = {
        "result": _result(folder),
        "curves": curves_section(drawn, Html(_file("curves.html"))),
        "maps": _maps(album),
        "episodes": _episodes(album),
        "recipe": _recipe(folder),
    }
    sections = (tag("section", tag("h2", title), made[key], id=key) for key, _, title in _SECTIONS)
    frames = ("frames", "frames of all environments", "frames")
    return Template(_file("explore.html")).substitute(
        policy=inline(content_policy(css, [theme, scripts])),
        version=inline(__version__),
        title=inline(f"{folder.path.resolve().name}: an exploration by reckon"),
        name=inline(folder.path.resolve().name),
        byline=inline(f"{_said(folder.recipe.get('explore'))} · bonus {_said(folder.recipe.get('bonus'))}"),
        css=css,
        theme=theme,
        contents=join(tag("li", tag("a", short, href=f"#{key}")) for key, short, _ in _SECTIONS),
        sections=join(sections),
        data=embed("curves-data", curves(folder.metrics, drawn, frames)),
        scripts=scripts,
    )


def _figures(metrics: Sequence[Metrics]) -> list[Figure]:
    """Success first; then what every run logs; then the numbers of the bonus at hand."""
    keys = dict.fromkeys(key for row in metrics for key, value in row.items() if math.isfinite(value))
    found = []
    if "episode/success" in keys:
        title = "Episodes that earned something"
        found.append(Figure(title, "% of episodes", (Line("episode/success", ""),), percent=True))
    singles = [entry for entry in _SINGLE if entry[2] in keys]
    others = [key for key in keys if key.startswith("bonus/") and key not in {entry[2] for entry in singles}]
    singles += [(key.replace("/", " ").replace("_", " ").capitalize(), "over the update", key, False) for key in others]
    return found + [Figure(title, unit, (Line(key, ""),), percent) for title, unit, key, percent in singles]


def _result(folder: Folder) -> Html:
    """The first sentence, what it took and what was run."""
    recent = [row for row in folder.metrics[-RECENT:] if row.get("episode/count")]
    ended = sum(row["episode/count"] for row in recent)
    if ended:
        won = sum(row["episode/count"] * row["episode/success"] for row in recent) / ended
        words: list[object] = [
            "In the last updates ",
            tag("strong", share(won)),
            f" of {count(ended)} episodes earned something.",
        ]
    else:
        words = ["No episode has ended yet."]
    spent = budget(folder)
    frames = sum(row.get("frames", 0.0) for row in folder.metrics)
    parts = math.fsum(seconds for seconds, _ in spent.parts.values())
    rows = [
        ("Updates", count(spent.steps)),
        ("Frames", count(frames)),
        ("Wall time", duration(spent.seconds)),
        ("Frames a second", count(frames / parts) if parts else "–"),
        *((f"Time: {name}", share(seconds / parts)) for name, (seconds, _) in spent.parts.items() if parts),
    ]
    counts = folder.recipe.get("key") is not None
    what = [(name, _said(folder.recipe.get(key))) for name, key in _WHAT if key != "key" or counts]
    tables = (table("What it took.", [], rows, class_="pairs"), table("What was run.", [], what, class_="pairs"))
    return join([tag("p", *words, class_="lead"), tag("div", *tables, class_="pair")])


_WHAT = (
    ("Environment", "explore"),
    ("Contexts", "contexts"),
    ("Bonus", "bonus"),
    ("Counted", "key"),
    ("Weight of the bonus", "alpha"),
    ("Network", "network"),
    ("Environments at once", "environments"),
    ("Seed", "seed"),
)


def _maps(album: Album | None) -> Html:
    if album is None or not album.visits:
        words = "There is no map: the environment has no drawing, or nothing has been saved yet."
        return tag("p", words, class_="note")
    words = (
        "Where all agents stood, in all contexts, fifth by fifth of the run. The darker, the more often; the scale is "
        "that of the square root, and the same in all maps."
    )
    return join([tag("p", words), maps_figure(album.visits)])


def _episodes(album: Album | None) -> Html:
    if album is None or not album.episodes:
        return tag("p", "No episode has been kept yet.", class_="note")
    words = (
        "The first whole episode of an update, now and then. Frames are moments of it: dots are where it has been, as "
        "large as the bonus that coming there was worth, a ring is where it is. Bars are the bonus of each step; a "
        "mark under a bar is a reward of the task."
    )
    largest = max((value for one in album.episodes for value in one.bonus), default=0.0)
    return join([tag("p", words), *(episode_figure(one, i, largest) for i, one in enumerate(album.episodes))])


def _recipe(folder: Folder) -> Html:
    line = command(folder.environment)
    made = ["This run was made by ", tag("code", line), "."] if line else ["The command was not recorded."]
    return join([tag("p", *made), tag("pre", folder.recipe_text)])


def _said(value: Json) -> str:
    return "as the environment has it" if value is None else str(value)


def _file(name: str) -> Html:
    return Html(files("reckon.report").joinpath(name).read_text(encoding="utf-8"))
