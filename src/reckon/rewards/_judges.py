"""Opening a judge that was fitted, as the reward it was trained to be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from reckon.errors import InputError, MissingError
from reckon.rewards._implicit import ImplicitReward
from reckon.rewards._judges_reading import Calibrated, Scorer
from reckon.rewards._outcome import OutcomeModel
from reckon.rewards._process_models import StepAdvantage, StepModel
from reckon.rewards._reference_based import ReferenceBased
from reckon.rewards._staged import StagedReward, StagedRewardHead
from reckon.steps import Pattern

if TYPE_CHECKING:
    from reckon.models import LanguageModel, Optimization
    from reckon.types import Json

JUDGE_FILE = "judge.json"
Judge: TypeAlias = ImplicitReward | OutcomeModel | StepModel | StepAdvantage | ReferenceBased | StagedReward
# What judge.json may say of each kind beside it: how its model was trained, so how it has to be read.
KEYS: Mapping[str, tuple[str, ...]] = {
    "implicit_reward": ("beta", "length_normalized", "reference", "splitter", "system"),
    "outcome_model": ("center", "temperature", "bias", "system"),
    "step_model": ("splitter", "end_token", "temperature", "bias", "system"),
    "step_advantage": ("splitter", "temperature", "bias", "system"),
    "reference_based": ("center", "show_reference", "keep"),
    "staged_reward": ("worth", "system"),
}
HEADLESS = ("implicit_reward", "staged_reward")  # kinds whose model has no value head


def load_judge(
    folder: str | Path,
    *,
    per: str | None = None,
    how: str | None = None,
    unfinished: Literal["score", "unknown", "replace", "subtract"] | None = None,
    penalty: float | None = None,
    prover_k: int | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    tokens_per_batch: int = 1024,
    optimizer: Optimization | None = None,
) -> Judge:
    """The reward that a fitted model was trained to be: `reckon fit` writes its kind and settings beside it.

    What the fit leaves open keeps the reward's defaults; `dataclasses.replace(judge, ...)` sets more than these.

    Args:
        folder: a run of `reckon fit`, or the folder model/ in it: a model, and judge.json with `kind`, the settings
            of `KEYS` and, under `about`, whatever else is known. A `reference` is a model's name, or a folder as seen
            from this one.
        per: "token", "step" or "response", for judges that have the choice.
        how: the steps of a response are made one score, for judges that have the choice.
        unfinished: what becomes of a response that ran into the limit, for outcome models; see `OutcomeModel`.
        penalty: what takes its score's place, or is subtracted from it.
        prover_k: the prover is the best of so many completions, for step advantages.
        device: as in `load_model`.
        dtype: as in `load_model`.
        tokens_per_batch: as in `load_model`.
        optimizer: how the judge's model learns, where it is to go on learning.

    Raises:
        MissingError: there is no such folder, no judge.json in it, or a model cannot be opened.
        InputError: judge.json is damaged, of a kind unknown here, or has settings its kind has not; the model's value
            head is missing; a choice that this judge does not have.
    """
    from reckon.models import Sampling, load_model

    path = _place(folder)
    about = _read(path)
    kind = str(about.pop("kind"))
    system = None if about.get("system") is None else _text(path / JUDGE_FILE, about, "system", "")

    def opened(name: str, *, head: bool) -> LanguageModel:
        how = Sampling(system=system)  # prompts that come as text are asked as they were in the fit
        return load_model(
            name,
            sampling=how,
            optimizer=optimizer,
            device=device,
            dtype=dtype,
            tokens_per_batch=tokens_per_batch,
            value_head=head,
        )

    model = opened(str(path), head=kind not in HEADLESS)
    if model.head is not None and not bool(model.head.weight.any()):
        raise InputError(
            f"the judge in {path} has no value head, or one that never learned. Was it saved completely? Fit it again."
        )
    judge = _build(path, kind, about, model, lambda name: opened(name, head=False))
    choices = {"per": per, "how": how, "unfinished": unfinished, "penalty": penalty, "prover_k": prover_k}
    return _with_choices(judge, kind, choices)


def check_judge(folder: str | Path, choices: Mapping[str, str | float | None]) -> None:
    """All that `load_judge` would have against a folder and choices (`per`, `how`); the model stays shut.

    Raises:
        MissingError, InputError: as `load_judge`.
    """
    path = _place(folder)
    about = _read(path)
    kind = str(about.pop("kind"))
    unopened = cast("LanguageModel", object())  # a judge looks at its model only when it is asked
    judge = _build(path, kind, about, unopened, lambda _: cast("Scorer", object()))
    _with_choices(judge, kind, choices)


def kind_of_judge(folder: str | Path) -> str:
    """Which of `KEYS` a folder holds; the model stays shut.

    Raises:
        MissingError, InputError: as `load_judge`.
    """
    return str(_read(_place(folder))["kind"])


def _place(folder: str | Path) -> Path:
    """Where judge.json is, of a run or of the folder model/ in it."""
    path = Path(folder).expanduser()
    inner = path / "model"
    return inner if not (path / JUDGE_FILE).exists() and (inner / JUDGE_FILE).exists() else path


def _read(folder: Path) -> dict[str, Json]:
    path = folder / JUDGE_FILE
    if not folder.is_dir():
        raise MissingError(f"there is no judge in {folder}: it is no folder. Name one that `reckon fit` has written.")
    if not path.is_file():
        raise MissingError(
            f"{folder} has no {JUDGE_FILE}, so nobody knows what judge its model is. Fit one with `reckon fit`; a "
            "reward model of somebody else's opens as SequenceClassifier."
        )
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}. Fit the judge again.") from error
    kind = about.get("kind") if isinstance(about, dict) else None
    if not isinstance(kind, str) or kind not in KEYS:
        raise InputError(f"{path}: `kind` is {kind!r}, which is no judge here. There are {', '.join(KEYS)}.")
    about.pop("about", None)
    for key in about:
        if key != "kind" and key not in KEYS[kind]:
            near = get_close_matches(key, KEYS[kind], n=1)
            hint = f" Did you mean `{near[0]}`?" if near else f" It has {', '.join(KEYS[kind])}."
            raise InputError(f"{path}: `{key}` is not a setting of {kind!r}.{hint}")
    return dict(about)


def _build(
    folder: Path, kind: str, about: Mapping[str, Json], model: LanguageModel, open_reference: Callable[[str], Scorer]
) -> Judge:
    where = folder / JUDGE_FILE
    splitter = Pattern(_text(where, about, "splitter", Pattern().regex))
    if kind == "implicit_reward":
        name = about.get("reference")
        reference = None if name is None else open_reference(_model_name(folder, _text(where, about, "reference", "")))
        beta, mean = _number(where, about, "beta", 0.05), _flag(where, about, "length_normalized", False)
        return ImplicitReward(model, reference=reference, beta=beta, length_normalized=mean, splitter=splitter)
    if kind == "reference_based":
        keep = about.get("keep")
        if keep is not None and not (isinstance(keep, list) and len(keep) == 2 and all(type(n) is int for n in keep)):
            raise InputError(f"{where}: `keep` is {keep!r}; it must be two whole numbers, or null.")
        pair = None if keep is None else cast("tuple[int, int]", tuple(keep))
        shown, center = _flag(where, about, "show_reference", True), _number(where, about, "center", 0.0)
        return ReferenceBased(model, reference=shown, keep=pair, center=center)
    if kind == "staged_reward":
        return StagedReward(model, StagedRewardHead.load(folder), worth=_worth(where, about))
    temperature, bias = _number(where, about, "temperature", 1.0), _number(where, about, "bias", 0.0)
    read: Scorer = model if (temperature, bias) == (1.0, 0.0) else Calibrated(model, temperature=temperature, bias=bias)
    if kind == "outcome_model":
        return OutcomeModel(read, center=_number(where, about, "center", 0.0))
    if kind == "step_model":
        return StepModel(read, splitter=splitter, end_token=_flag(where, about, "end_token", True))
    return StepAdvantage(read, splitter=splitter, rank=True)  # its value ranks responses, its advantages train


def _with_choices(judge: Judge, kind: str, choices: Mapping[str, str | float | None]) -> Judge:
    asked = {name: value for name, value in choices.items() if value is not None}
    has = {field.name for field in fields(judge)}
    for name in asked:
        if name not in has:
            raise InputError(f"the judge is of kind {kind!r}, which has no `{name}`. Leave it out.")
    return replace(judge, **asked)  # type: ignore[arg-type]  # checked by the judge itself


def _model_name(folder: Path, name: str) -> str:
    beside = folder / name
    return str(beside) if beside.is_dir() else name


def _number(where: Path, about: Mapping[str, Json], key: str, default: float) -> float:
    value = about.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: `{key}` is {value!r}; it must be a number.")
    return float(value)


def _worth(where: Path, about: Mapping[str, Json]) -> tuple[float, ...] | None:
    """What each stage is worth, if that is said."""
    value = about.get("worth")
    if value is None:
        return None
    if not isinstance(value, list) or any(isinstance(one, bool) or not isinstance(one, int | float) for one in value):
        raise InputError(f"{where}: `worth` is {value!r}; it must be a list of numbers, or null.")
    return tuple(float(cast("float", one)) for one in value)


def _flag(where: Path, about: Mapping[str, Json], key: str, default: bool) -> bool:
    value = about.get(key, default)
    if not isinstance(value, bool):
        raise InputError(f"{where}: `{key}` is {value!r}; it must be true or false.")
    return value


def _text(where: Path, about: Mapping[str, Json], key: str, default: str) -> str:
    value = about.get(key, default)
    if not isinstance(value, str):
        raise InputError(f"{where}: `{key}` is {value!r}; it must be text.")
    return value
