"""Fitting by name: data and a model in, a run's folder with a model and what it is good for out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reckon.errors import InputError, MissingError, RunError
from reckon.files import writing
from reckon.fit._calibrate import Calibration, read_logits, recalibrate
from reckon.fit._draw import balanced, by_buckets, by_problem, by_prompt, pairs, thinned
from reckon.fit._fitting import fitting, held_back
from reckon.fit._kinds import Entry, Settings, entry_of, shown
from reckon.fit._likelihood import FitLoss, Preference
from reckon.fit._loop import Order, Plan, check_rows, fit, measure, schedule, shuffled
from reckon.fit._read import Read, Source, read_examples
from reckon.fit._reference import CachedReference
from reckon.fit._rows import Example, Prefix, Unpaired
from reckon.fit._scores import PrefixValues
from reckon.fit._staged import StagedOutcome, counted, record, solved
from reckon.models import BUILT_IN, Optimization, Sampling, load_model
from reckon.runs import Run
from reckon.tasks import prompt_key
from reckon.types import Json, Metrics, Rng

if TYPE_CHECKING:
    from reckon.models import LanguageModel

JUDGE_FILE = "judge.json"  # in model/: what `reckon.rewards.load_judge` reads
ABOUT_FILE = "fitted.json"  # beside model/: what it was made of
SCALAR = ("outcome_model", "reference_based")  # judges with one score for a response, so classifiers too
Show = Literal["auto", "bar", "lines", "nothing"]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What became of it."""

    folder: Path  # the run's; model/ and fitted.json are there once it is finished
    finished: bool  # False = interrupted: resume it
    steps: int
    best: int | None  # the step whose weights were kept; None = the last, since no row was held back
    rows: int  # learned from, pairs or prefixes
    dev_rows: int
    told: tuple[str, ...]  # what was left out, and other things to know, each a sentence
    metrics: Metrics  # on the rows held back, of the weights that were kept


def fit_command(
    kind: str,
    data: Source,
    model: str,
    out: str | Path,
    settings: Settings | None = None,
    *,
    dev_data: Source | None = None,
    overwrite: bool = False,
    resume: bool = False,
    show: Show = "auto",
) -> Fitted:
    """Fits a model of one kind and writes it.

    The folder is a run's (recipe, environment, metrics, checkpoints) and gets fitted.json, which says what the model
    was made of; model/, a plain Hugging Face folder with, for judges, the value head and judge.json in it, so that
    `reckon.rewards.load_judge` opens it; for outcome models classifier/, for `AutoModelForSequenceClassification`.

    Args:
        kind: of `KINDS`.
        data: rows to learn from; see `read_examples`.
        model: what to begin with: a built-in name, a folder or a hub id.
        out: the folder.
        settings: how.
        dev_data: rows to measure on, in place of holding some back; `settings.dev` is left alone then, or 0.
        overwrite: delete the run that is there.
        resume: go on with the run that is there, with the same data and settings.
        show: how progress is shown, on stderr.

    Raises:
        MissingError: no such data, model or run.
        InputError: a setting or a row that cannot be used.
        RunError: a run is there already, or another one than is to be resumed.
    """
    settings = settings or Settings()
    entry = entry_of(kind, settings)
    order = _order(entry, settings)
    _check_folder(Path(out), kind, model, overwrite=overwrite, resume=resume)
    bare = load_model(model, sampling=Sampling(system=settings.system), dtype=settings.dtype, device=settings.device)
    given = _given(entry, bare, data, dev_data, settings)
    plan = _plan(settings, show)
    # As many steps as `fit` will take, or the rate would not be at 0 after the last.
    total = len(schedule(given.train, plan, order, least=entry.least))
    learner = _learner(bare, entry, settings, total=total)
    loss = entry.loss(settings, _reference(entry, learner, settings))
    check_rows(learner, loss, given.train, given.dev)
    if isinstance(loss, StagedOutcome):
        loss = solved(learner, given.train, given.dev, settings)
    recipe = _recipe(kind, data, dev_data, given, model, settings)
    with _open(out, recipe, overwrite=overwrite, resume=resume) as run:
        if not resume:
            _clear(run.folder)
        if isinstance(loss, StagedOutcome):
            record(learner, loss, given.train, given.dev, run)
            finished = True
        else:
            finished = fit(learner, given.train, loss, plan, run, dev=given.dev, order=order)
        if finished and run.best is not None:
            run.load({"model": learner}, "best")
        calibration, said = _calibration(learner, given.dev, loss, settings) if finished else (None, [])
        result = Fitted(
            folder=run.folder,
            finished=finished,
            steps=max(run.checkpoints, default=0),
            best=run.best,
            rows=len(given.train),
            dev_rows=len(given.dev),
            told=(*given.told, *said, *_moved(entry, settings)),
            metrics=measure(learner, given.dev, loss) if given.dev and finished else {},
        )
        if finished:
            _write(result, learner, recipe, entry, settings, calibration, loss)
    return result


def _order(entry: Entry, settings: Settings) -> Order:
    """The order in which rows are learned from."""
    if entry.shape == "prefix" and settings.buckets:
        if settings.together:
            raise InputError("`buckets` draws prefixes one by one, so they cannot be `together`. Set buckets=false.")
        return by_buckets
    return by_prompt if settings.together else shuffled


def _check_folder(out: Path, kind: str, model: str, *, overwrite: bool, resume: bool) -> None:
    """What a run in the folder does not allow, told before anything is loaded."""
    there = (out / "recipe.yaml").is_file()
    if resume and not there:
        raise MissingError(f"there is no fit in {out} to go on with. Leave --resume out, or name its folder: --out.")
    if there and not (resume or overwrite):
        raise RunError(
            f"{out} holds a run already. Go on with it (reckon fit {kind} ... --resume), choose another folder "
            "(--out), or delete it (--overwrite)."
        )
    if there and overwrite and Path(model).expanduser().resolve() == (out / "model").resolve():
        raise InputError(
            f"the model {model} is that of the run in {out}, which --overwrite deletes. Take another --out."
        )


def _open(out: str | Path, recipe: Mapping[str, Json], *, overwrite: bool, resume: bool) -> Run:
    """The run's folder; of checkpoints the last and the best are enough."""
    if resume:
        return Run.resume(out, recipe, keep_last=1)
    return Run.create(out, recipe=recipe, overwrite=overwrite, keep_last=1)


def _clear(folder: Path) -> None:
    """Deletes what an earlier fit had made here: until this one is done, that would pass for its judge."""
    if (folder / ABOUT_FILE).is_file():
        with writing(folder):
            for name in ("model", "classifier"):
                shutil.rmtree(folder / name, ignore_errors=True)
            (folder / ABOUT_FILE).unlink()


@dataclass(frozen=True, kw_only=True)
class _Given:
    """The rows of a fit."""

    train: Sequence[Example]
    dev: Sequence[Example]
    fingerprint: str  # of the data
    dev_fingerprint: str | None  # of `dev_data`
    told: tuple[str, ...]  # what was left out


def _given(entry: Entry, model: LanguageModel, data: Source, dev_data: Source | None, settings: Settings) -> _Given:
    """Rows read, held back, balanced, and none of them too long."""
    data = list(data) if isinstance(data, Iterator) else data  # they are looked at twice
    dev_data = list(dev_data) if isinstance(dev_data, Iterator) else dev_data
    _check_read(entry, data, dev_data, settings)
    read, told = _rows(entry, data, settings)
    train, dev = held_back(read.rows, settings.dev if dev_data is None else 0.0)
    if settings.dev and dev_data is None and not dev:
        prompts = len({prompt_key(row.problem.prompt) for row in train})
        told.append(
            f"No row was held back to measure on: none of {prompts} prompts fell into the share of {settings.dev:g}. "
            "Raise `dev`, or give rows to measure on."
        )
    dev_read = None
    if dev_data is not None:
        # Rows to measure on stay what they are, or figures of different settings could not be compared.
        dev_read, more_told = _rows(entry, dev_data, dataclasses.replace(settings, responses=None))
        dev = list(dev_read.rows)
        told += [f"Of the rows to measure on: {said}" for said in more_told]
    if settings.prompts < 1:
        before = len(train)
        train = thinned(train, Rng((settings.seed, "prompts")), prompts=settings.prompts)
        told.append(f"Of {settings.prompts:.4g} of the prompts {len(train)} of {before} rows were kept to learn from.")
    train, long = fitting(model, _balanced(train, settings), settings.on_long, shown(settings))
    if dev:
        dev, more = fitting(model, dev, settings.on_long, shown(settings))
        long += more
    if long:
        told.append(f"{long} rows are longer than the model's context and were dropped.")
    if entry.shape == "prefix" and not any(isinstance(row, Prefix) and row.text == "" for row in train):
        told.append(
            "No row has an empty prefix, so the value before the first step was not learned, and an advantage of that "
            "step says little."
        )
    return _Given(
        train=train,
        dev=dev,
        fingerprint=read.fingerprint,
        dev_fingerprint=None if dev_read is None else dev_read.fingerprint,
        told=tuple(told),
    )


def _check_read(entry: Entry, data: Source, dev_data: Source | None, settings: Settings) -> None:
    """Raises InputError if a setting would not be read with this data."""
    if dev_data is not None and settings.dev not in (0.0, Settings.dev):
        raise InputError("`dev` is the share of rows held back, but rows to measure on are given. Leave out either.")
    if settings.show_reference and settings.system is not None:
        raise InputError("`system` stands before prompts, and with `show_reference` texts are read bare. Leave it out.")
    sources = [data] if dev_data is None else [data, dev_data]
    names = ("pairs", "cap", "responses")
    made = any(getattr(settings, name) != getattr(Settings, name) for name in names)
    if entry.shape == "paired" and made and not any(map(_is_unpaired, sources)):
        raise InputError(
            "`pairs`, `cap` and `responses` say how pairs are made, but the rows are pairs already. Leave them out."
        )


def _rows(entry: Entry, source: Source, settings: Settings) -> tuple[Read, list[str]]:
    """The rows of a source in the kind's shape, and what was left out. Unpaired rows are made pairs of."""
    shape = entry.shape
    if shape == "paired" and _is_unpaired(source):
        read, told = _at_most(read_examples(source, "unpaired", on_bad=settings.on_bad), settings)
        groups = by_problem([row for row in read.rows if isinstance(row, Unpaired)])
        made = pairs(groups, Rng((settings.seed, "pairs")), higher_is_better=True, how=settings.pairs, cap=settings.cap)
        if not made:
            raise InputError(
                "no prompt has both a right and a wrong response, so there is no pair. Sample more to each."
            )
        told.append(f"{len(made)} pairs were made of {len(read.rows)} responses to {len(groups)} prompts.")
        read = dataclasses.replace(read, rows=tuple(made))
    else:
        read = read_examples(source, shape, separator=settings.separator, on_bad=settings.on_bad)
        read, told = _at_most(read, settings)
    if settings.show_reference:
        read = _answered(read, settings)
    if shape == "staged":
        read, more = counted(read, settings.stages, settings.stage_of)
        told += more
    if read.unknown:
        told.append(f"{read.unknown} rows without a label were left out.")
    if read.dropped:
        told.append(f"{len(read.dropped)} rows could not be used and were dropped, the first: {read.dropped[0]}")
    return read, told


def _at_most(read: Read, settings: Settings) -> tuple[Read, list[str]]:
    """At most so many of the rows to a prompt, and what was left out."""
    if settings.responses is None:
        return read, []
    rows = thinned(read.rows, Rng((settings.seed, "responses")), responses=settings.responses)
    told = f"{len(rows)} of {len(read.rows)} responses were kept, at most {settings.responses} to a prompt."
    return dataclasses.replace(read, rows=tuple(rows)), [told]


def _answered(read: Read, settings: Settings) -> Read:
    """The rows that have an answer to show; the others are bad ones."""
    bad = [
        f"problem {row.problem.id!r} has no reference answer to show. Give a column `answer`, or drop the row."
        for row in read.rows
        if row.problem.answer is None
    ]
    if bad and (settings.on_bad == "error" or len(bad) == len(read.rows)):
        raise InputError(bad[0])
    rows = tuple(row for row in read.rows if row.problem.answer is not None)
    return dataclasses.replace(read, rows=rows, dropped=(*read.dropped, *bad))


def _is_unpaired(source: Source) -> bool:
    from reckon.fit._read import open_rows

    first = next(iter(open_rows(source)), None)
    return (
        first is not None
        and "chosen" not in first.values
        and not {"label", "outcome", "correctness"}.isdisjoint(first.values)
    )


def _balanced(rows: Sequence[Example], settings: Settings) -> list[Example]:
    if settings.balance == "none":
        return list(rows)
    unpaired = [row for row in rows if isinstance(row, Unpaired)]
    return list(balanced(unpaired, settings.balance, Rng((settings.seed, "balance"))))


def _plan(settings: Settings, show: Show) -> Plan:
    return Plan(
        epochs=settings.epochs,
        batch=settings.batch,
        seed=settings.seed,
        evaluate_every=settings.evaluate_every,
        save_every=settings.save_every,
        show=show,
    )


def _learner(bare: LanguageModel, entry: Entry, settings: Settings, total: int) -> LanguageModel:
    """The model with the optimizer, adapters and head that it learns with."""
    from reckon.models import LanguageModel

    return LanguageModel(
        bare.network,
        bare.tokenizer,
        sampling=bare.sampling,
        optimizer=Optimization(
            lr=settings.lr, schedule=settings.schedule, warmup=round(settings.warmup * total), total=total
        ),
        lora=settings.lora,
        dtype=settings.dtype,
        device=settings.device,
        tokens_per_batch=settings.tokens_per_batch,
        activation_checkpointing=settings.activation_checkpointing,
        value_head=entry.head,
        head_lr=settings.head_lr,
    )


def _reference(entry: Entry, learner: LanguageModel, settings: Settings) -> CachedReference | None:
    if "reference" not in entry.reads or settings.reference == "none":
        return None
    if settings.reference == "start":
        return CachedReference(learner.reference(sync_every=settings.sync_every, sync_alpha=settings.sync_alpha))
    other = load_model(settings.reference, sampling=learner.sampling, dtype=settings.dtype, device=settings.device)
    probe = "A probe: 1 + 2 = 3.\n"
    if other.response_tokens(probe) != learner.response_tokens(probe):
        raise InputError(
            f"the reference {settings.reference!r} has another tokenizer than the model, so their log-probs are of "
            "other tokens. Take the model that yours was trained from."
        )
    return CachedReference(other.reference())


def _recipe(
    kind: str, data: Source, dev_data: Source | None, given: _Given, model: str, settings: Settings
) -> dict[str, Json]:
    source, dev_source = (str(s) if isinstance(s, str | Path) else "rows given in Python" for s in (data, dev_data))
    how: dict[str, Json] = json.loads(json.dumps(dataclasses.asdict(settings)))
    dev: dict[str, Json] = {"dev_data": dev_source, "dev_data_sha256": given.dev_fingerprint}
    read = {"data": source, "data_sha256": given.fingerprint, **(dev if dev_data is not None else {})}
    return {"fit": kind, **read, "model": model, **how}


def _calibration(
    model: LanguageModel, dev: Sequence[Example], loss: FitLoss, settings: Settings
) -> tuple[Calibration | None, list[str]]:
    """Temperature and bias on the rows held back, or why there are none."""
    if not isinstance(loss, PrefixValues) or not settings.calibrate:
        return None, []
    if not dev:
        return None, ["No rows were held back, so the values are not calibrated."]
    try:
        return recalibrate(*read_logits(model, dev, loss)), []
    except InputError as error:
        return None, [f"The values are not calibrated: {error}"]


def _write(
    result: Fitted,
    model: LanguageModel,
    recipe: Mapping[str, Json],
    entry: Entry,
    settings: Settings,
    calibration: Calibration | None,
    loss: FitLoss,
) -> None:
    """The model's folder, the classifier's, and what they are."""
    folder = result.folder / "model"
    model.save_pretrained(folder)
    if isinstance(loss, StagedOutcome):
        loss.known.save(folder)
    kind = _judge(entry, settings)
    if kind in SCALAR:
        model.save_classifier(result.folder / "classifier", end_token=not settings.show_reference)
    about: dict[str, Json] = {
        "fit": recipe["fit"],
        "base": recipe["model"],
        "system": settings.system,
        "data": recipe["data"],
        "data_sha256": recipe["data_sha256"],
        "rows": result.rows,
        "dev_rows": result.dev_rows,
        "told": list(result.told),
        "step": result.steps if result.best is None else result.best,
        "steps": result.steps,
        "model_sha256": _digest(folder),
        "dev": {name.removeprefix("dev/"): value for name, value in result.metrics.items()},
    }
    if settings.stages:
        about["stages"] = list(settings.stages)
    (result.folder / ABOUT_FILE).write_text(json.dumps(about, indent=2) + "\n")
    if kind is None:
        return
    judge: dict[str, Json] = {"kind": kind}
    if kind == "implicit_reward":
        judge["beta"] = entry.beta if settings.beta is None else settings.beta
        judge["reference"] = _reference_name(str(recipe["model"]), settings.reference)
    if isinstance(loss, Preference) and loss.kind == "dpo_norm":
        judge["length_normalized"] = True
    if "splitter" in entry.reads:
        judge["splitter"] = settings.splitter
    if settings.system is not None:
        judge["system"] = settings.system
    if kind in SCALAR and "dev/chosen" in result.metrics:  # pairs leave the level open: their mean becomes 0
        judge["center"] = (result.metrics["dev/chosen"] + result.metrics["dev/rejected"]) / 2
    if kind == "reference_based":
        judge["show_reference"] = True
    if settings.worth is not None:
        judge["worth"] = list(settings.worth)
    if calibration is not None:
        judge |= {"temperature": calibration.temperature, "bias": calibration.bias}
    (folder / JUDGE_FILE).write_text(json.dumps({**judge, "about": about}, indent=2) + "\n")


def _judge(entry: Entry, settings: Settings) -> str | None:
    """The judge that the model is; none where the reference moved, for nothing is left to take the rewards against."""
    if settings.sync_every is not None:
        return None
    return "reference_based" if settings.show_reference else entry.judge


def _moved(entry: Entry, settings: Settings) -> list[str]:
    if settings.sync_every is None or entry.judge is None:
        return []
    return [
        "The reference followed the model, so the model is a policy and no implicit reward: there is no judge.json."
    ]


def _reference_name(model: str, reference: str) -> str | None:
    """The reference as the model's folder can name it: wherever it is opened from."""
    if reference == "none":
        return None
    name = model if reference == "start" else reference
    return str(Path(name).resolve()) if name not in BUILT_IN and Path(name).is_dir() else name


def _digest(folder: Path) -> str:
    """SHA-256 of a model's weights as they stand on the disk."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
