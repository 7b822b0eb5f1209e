"""Reference levels by prompt: what base samples earn, drawn once before training and never again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast, get_args

import numpy as np
import torch

from reckon.combinations import Level, level
from reckon.errors import InputError, MissingError, RunError
from reckon.files import write_file
from reckon.rewards._combine_ridge import prompt_features, ridge
from reckon.rewards._tree import restore, states
from reckon.tasks import verdict_on
from reckon.types import Batch, End, Json, Problem, Reward, Rng, Rollouts, Sequences, State, Stream, Task

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "reckon references 1"
CHUNK = 16  # problems sampled at a time: what was scored is small, what was sampled is not
Model: TypeAlias = "Literal['ridge'] | Callable[[str, Problem], float] | None"


class Samples(Protocol):
    """A policy that answers."""

    def sample(
        self, problems: Sequence[Problem], k: int, rng: Rng, prefixes: Sequence[Sequence[int]] | None = None
    ) -> Rollouts:
        """Answers each problem k times."""
        ...


class ReferenceStore:
    """What base samples earned, by reward and problem, and the levels made of them.

    It is fitted once, on the frozen model before training. Fitting it again is refused: references of the policy as it
    is now would move the target along with it. It knows what it was fitted on (`fitted_on`) and is saved as JSON.

    A prompt without samples gets what `model` says, else the median of the stored levels, and is counted.
    """

    def __init__(
        self,
        how: Level = "quantile",
        q: float = 0.85,
        *,
        sample_std: bool = False,
        per_prompt: bool = True,
        model: Model = None,
    ) -> None:
        """An empty store.

        Args:
            how: which level of a prompt's samples; "gaussian" for fewer than about 20 of them.
            q: of "quantile" and "gaussian", in (0, 1).
            sample_std: of "gaussian": divide by n - 1, not n.
            per_prompt: False = one level, of all prompts' samples together: a weak baseline, for prompts differ.
            model: for prompts without samples. "ridge": a linear regression on length, words, digits and lines of the
                prompt, used for a reward only where it predicts left-out levels better than their mean does; or a
                function of the reward's name and the problem, which must be given again on loading.

        Raises:
            InputError: an unknown `how` or `model`, or q outside (0, 1).
        """
        if how not in get_args(Level):
            raise InputError(f"references: `how` is {how!r}; it must be one of {', '.join(get_args(Level))}.")
        if not 0 < q < 1:
            raise InputError(f"references: `q` is {q}; it must lie between 0 and 1.")
        if model is not None and model != "ridge" and not callable(model):
            raise InputError(f"references: `model` is {model!r}; it must be ridge or a function.")
        self.how, self.q, self.sample_std, self.per_prompt, self.model = how, q, sample_std, per_prompt, model
        self.fitted_on: dict[str, Json] = {}
        self.missing = 0  # lookups of prompts that have no samples, so far
        self._samples: dict[str, dict[str, list[float]]] = {}  # reward, problem id
        self._prompts: dict[str, str] = {}  # problem id to the prompt's fingerprint
        self._features: dict[str, list[float]] = {}
        self._levels: dict[str, dict[str, float]] = {}

    @property
    def keys(self) -> tuple[str, ...]:
        """The rewards it has references for."""
        return tuple(self._samples)

    def fit(self, reward: Reward, rollouts: Rollouts, *, policy_id: str, task: Task | None = None) -> ReferenceStore:
        """Scores base samples and keeps what they earned.

        Args:
            reward: each of its trained streams [N] is a reward of its own, under its name.
            rollouts: n answers of the frozen base model to each training problem; 16 to 64 are usual.
            policy_id: which model that was, for `fitted_on`.
            task: judges the answers, for rewards that read the verdict.

        Returns:
            The store itself.

        Raises:
            RunError: it is fitted already; a reward gives one value for each token; a problem has two prompts.
        """
        self._check_unfitted()
        self._add(reward, rollouts, task)
        self._finish(policy_id, [rollouts.text])
        return self

    def fit_from(
        self,
        reward: Reward,
        problems: Sequence[Problem],
        policy: Samples,
        *,
        n: int,
        rng: Rng,
        policy_id: str,
        task: Task | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> ReferenceStore:
        """Draws n answers to each problem from the frozen base model and fits on them; see `fit`.

        `progress` is told how many problems are done.

        Raises:
            InputError: no problems, or n below 1.
            RunError: as `fit`.
        """
        self._check_unfitted()
        if n < 1 or not problems:
            raise InputError(f"references: {n} samples of {len(problems)} problems are none; both must be 1 or more.")
        texts = []
        for start in range(0, len(problems), CHUNK):
            rollouts = policy.sample(problems[start : start + CHUNK], n, rng.child("references", start))
            self._add(reward, rollouts, task)
            texts.append(rollouts.text)
            if progress is not None:
                progress(min(start + CHUNK, len(problems)))
        self._finish(policy_id, texts)
        return self

    def fit_canned(
        self,
        reward: Reward,
        problems: Sequence[Problem],
        text: str,
        *,
        tokenize: Callable[[Sequence[Problem], Sequence[str]], Sequences],
        task: Task | None = None,
    ) -> ReferenceStore:
        """Takes as reference what one given answer earns, a polite refusal say: a known good-enough level.

        Args:
            reward: as of `fit`.
            problems: each is answered with `text`.
            text: the answer.
            tokenize: makes tokens of problems and answers, as `LanguageModel.tokenize` does.
            task: as of `fit`.

        Raises:
            RunError: as `fit`.
        """
        self._check_unfitted()
        seq = tokenize(problems, [text] * len(problems))
        rollouts = Rollouts(
            seq=seq,
            problems=tuple(problems),
            text=(text,) * len(problems),
            pieces=tuple((text, *[""] * (int(count) - 1)) for count in seq.mask.sum(dim=1)),
            logprobs=torch.zeros(seq.mask.shape),
            end=torch.full((len(problems),), int(End.EOS)),
        )
        return self.fit(reward, rollouts, policy_id="canned text", task=task)

    def levels(self, key: str, problems: Sequence[Problem]) -> tuple[Tensor, Tensor]:
        """Reference levels of problems.

        Args:
            key: which reward; "" where the store has only one.
            problems: N of them, repeated or not.

        Returns:
            [N] float32 levels, and [N] bool, True where the problem has samples of its own.

        Raises:
            InputError: no such reward, or a problem's prompt is not the one it had when its samples were drawn, and
                none of theirs.
        """
        key = self.check_key(key)
        stored = self._levels[key]
        ids = self._ids(key, problems)
        fallback = self._fallback(key)
        values = [fallback(p) if name is None else stored[name] for p, name in zip(problems, ids, strict=True)]
        return torch.tensor(values, dtype=torch.float32), torch.tensor([name is not None for name in ids])

    def samples(self, key: str, problems: Sequence[Problem]) -> tuple[Tensor, Tensor]:
        """As `levels`, but the samples' rewards themselves, [J, N] float32, NaN where a problem has fewer.

        A problem without samples has one, its fallback level.
        """
        key = self.check_key(key)
        stored = self._samples[key]
        ids = self._ids(key, problems)
        fallback = self._fallback(key)
        rows = [[fallback(p)] if name is None else stored[name] for p, name in zip(problems, ids, strict=True)]
        height = max(map(len, rows))
        padded = [row + [math.nan] * (height - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.float32).T, torch.tensor([name is not None for name in ids])

    def explained(self, key: str = "") -> float:
        """Share of the levels' variance that "ridge" explains on levels it has not seen; 0 or below = useless."""
        return ridge(self._table(self.check_key(key)))[1]

    def check_key(self, key: str) -> str:
        """The reward's name, or that of the only one for "".

        Raises:
            InputError: the store is empty, has no such reward, or has several and none was named.
        """
        if not self._samples:
            raise InputError("references: the store is empty. Fit it on samples of the base model first.")
        if not key and len(self._samples) == 1:
            return next(iter(self._samples))
        if key not in self._samples:
            asked = f"no {key!r}" if key else "several rewards, and `key` names none"
            raise InputError(f"references: the store has {asked}. It has {', '.join(sorted(self._samples))}.")
        return key

    def save(self, path: str | Path) -> None:
        """Writes the store as JSON.

        Raises:
            RunError: the file holds other references, the store is empty, or the file cannot be written.
        """
        path = Path(path)
        if not self._samples:
            raise RunError(f"{path}: there are no references to save. Fit the store first.")
        if path.exists() and ReferenceStore.load(path, model=self.model).state_dict() != self.state_dict():
            raise RunError(
                f"{path} holds other references, and references are never replaced: the target would move. Load them,"
                " or choose another file."
            )
        write_file(path, json.dumps(self.state_dict()).encode())

    @classmethod
    def load(cls, path: str | Path, *, model: Model = None) -> ReferenceStore:
        """Reads what `save` wrote.

        Args:
            path: the file.
            model: the function it was made with, where it was made with one.

        Raises:
            MissingError: there is no such file.
            InputError: it is no file of references, or needs its `model`.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingError(f"{path} is not there. Fit references with ReferenceStore and save them.")
        store = cls(model=model)
        try:
            store.load_state_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is no file of references: {error}") from error
        return store

    def state_dict(self) -> dict[str, Json]:
        """All that is known, as JSON."""
        return cast(
            "dict[str, Json]",
            {
                "format": FORMAT,
                "how": self.how,
                "q": self.q,
                "sample_std": self.sample_std,
                "per_prompt": self.per_prompt,
                "model": "function" if callable(self.model) else self.model,
                "fitted_on": self.fitted_on,
                "prompts": self._prompts,
                "features": self._features,
                "samples": self._samples,
            },
        )

    def load_state_dict(self, state: State) -> None:
        """Becomes the store that was saved.

        Raises:
            InputError: it is none of ours, or needs a `model` that was not given.
        """
        if not isinstance(state, Mapping) or state.get("format") != FORMAT:
            raise InputError(f"the format is not {FORMAT!r}.")
        saved = cast("dict[str, object]", state)
        if saved["model"] == "function" and not callable(self.model):
            raise InputError("it was made with a function as `model`; give that function again.")
        self.how, self.q = cast("Level", saved["how"]), cast("float", saved["q"])
        self.sample_std, self.per_prompt = bool(saved["sample_std"]), bool(saved["per_prompt"])
        self.model = self.model if saved["model"] == "function" else cast("Model", saved["model"])
        self.fitted_on = dict(cast("dict[str, Json]", saved["fitted_on"]))
        self._prompts = dict(cast("dict[str, str]", saved["prompts"]))
        self._features = {name: list(row) for name, row in cast("dict[str, list[float]]", saved["features"]).items()}
        self._samples = {
            key: {name: [float(value) for value in row] for name, row in rows.items()}
            for key, rows in cast("dict[str, dict[str, list[float]]]", saved["samples"]).items()
        }
        self._make_levels()

    def _check_unfitted(self) -> None:
        if self._samples:
            raise RunError(
                f"references: the store is fitted already, on {self.fitted_on.get('policy')!r}, and is never fitted"
                " again: references of the present policy would move the target. Make another store."
            )

    def _add(self, reward: Reward, rollouts: Rollouts, task: Task | None) -> None:
        batch = _batch(rollouts, task)
        streams = {key: stream for key, stream in reward.score(batch).items() if stream.train}
        if not streams:
            raise RunError("references: the reward gives no stream that trains.")
        for group, problem in enumerate(rollouts.problems):
            mark = fingerprint(problem)
            if self._prompts.setdefault(problem.id, mark) != mark:
                raise RunError(
                    f"references: the problem {problem.id!r} stands twice, with two prompts. Make ids unique."
                )
            self._features[problem.id] = prompt_features(problem)
            rows = rollouts.seq.group == group
            for key, stream in streams.items():
                if stream.values.ndim != 1:
                    raise RunError(f"references: the reward {key!r} gives a value for each token. Give one a response.")
                values = stream.values[rows].tolist()
                kept = self._samples.setdefault(key, {}).setdefault(problem.id, [])
                kept += [value for value in values if not math.isnan(value)]

    def _finish(self, policy_id: str, texts: Sequence[Sequence[str]]) -> None:
        written = json.dumps([list(part) for part in texts]).encode()
        self.fitted_on = {
            "policy": policy_id,
            "samples": hashlib.sha256(written).hexdigest()[:16],
            "problems": len(self._prompts),
        }
        self._samples = {key: {name: row for name, row in rows.items() if row} for key, rows in self._samples.items()}
        empty = [key for key, rows in self._samples.items() if not rows]
        if empty:
            self._samples = {}
            raise RunError(f"references: no base sample has a known reward {empty[0]!r}. Does it need a `task`?")
        self._make_levels()

    def _make_levels(self) -> None:
        def of(values: list[float]) -> float:
            return float(level(torch.tensor(values, dtype=torch.float64), self.how, self.q, sample_std=self.sample_std))

        self._levels = {}
        for key, rows in self._samples.items():
            if self.per_prompt:
                self._levels[key] = {name: of(row) for name, row in rows.items()}
            else:
                self._levels[key] = dict.fromkeys(rows, of([value for row in rows.values() for value in row]))

    def _ids(self, key: str, problems: Sequence[Problem]) -> list[str | None]:
        """Under which id each problem's samples are stored: its own, or that of another with the same prompt."""
        by_prompt = {mark: name for name, mark in self._prompts.items()}
        ids = []
        for problem in problems:
            mark = fingerprint(problem)
            name = problem.id if self._prompts.get(problem.id) == mark else by_prompt.get(mark)
            if name is None and problem.id in self._prompts:
                raise InputError(
                    f"references: the problem {problem.id!r} has another prompt than when its samples were drawn. Use"
                    " the data they were drawn for, or fit a new store before training."
                )
            ids.append(name if name in self._samples[key] else None)
        self.missing += ids.count(None)
        return ids

    def _fallback(self, key: str) -> Callable[[Problem], float]:
        """What a problem without samples gets."""
        model, middle = self.model, float(np.median(list(self._levels[key].values())))
        if callable(model):
            return lambda problem: float(model(key, problem))
        if model == "ridge":
            predict, explained = ridge(self._table(key))
            if explained > 0:
                return lambda problem: predict(prompt_features(problem))
        return lambda problem: middle

    def _table(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        stored = self._levels[key]
        return np.array([self._features[name] for name in stored]), np.array(list(stored.values()))


def fingerprint(problem: Problem) -> str:
    """A short hash of the prompt."""
    return hashlib.sha256(problem.prompt_text.encode()).hexdigest()[:12]


def as_references(owner: str, given: float | str | Path | ReferenceStore, key: str) -> float | ReferenceStore:
    """A level or a store, read from its file if need be, that has the reward `key`.

    Raises:
        InputError: the level is not finite, or the store has no such reward.
        MissingError: there is no such file.
    """
    if isinstance(given, str | Path):
        given = ReferenceStore.load(given)
    if isinstance(given, ReferenceStore):
        given.check_key(key)
        return given
    if not math.isfinite(given):
        raise InputError(f"{owner}: `references` is {given}; a level must be finite.")
    if key:
        raise InputError(f"{owner}: `key` is {key!r}, but `references` is one level for all, which has no keys.")
    return float(given)


def levels_of(references: object, key: str, batch: Batch, like: Tensor) -> tuple[Tensor, dict[str, Stream]]:
    """The level of each response's prompt, [N], and what to watch: it, and the share of prompts without samples."""
    if not isinstance(references, ReferenceStore):
        return torch.full_like(like, float(cast("float", references))), {}
    levels, known = references.levels(key, batch.rollouts.problems)
    group = batch.seq.group
    values, lacking = levels.to(like)[group], (~known).to(like)[group]
    watched = {"reference": Stream(values=values, train=False), "no_reference": Stream(values=lacking, train=False)}
    return values, watched


def references_state(reward: Reward, references: object) -> State:
    """The reward's memory, and what a run keeps of its references: nothing of a level, which the recipe holds."""
    stored = references.state_dict() if isinstance(references, ReferenceStore) else {}
    return {"reward": states({"reward": reward}), "references": stored}


def restore_references(owner: str, reward: Reward, references: object, state: State) -> None:
    """Gives the reward its memory and a store the content it had when the run was saved.

    Raises:
        RunError: the run was saved with a store and has none now, or the reverse.
    """
    saved, inner = state.get("references"), state.get("reward")
    restore({"reward": reward}, inner if isinstance(inner, Mapping) else {})
    if bool(saved) != isinstance(references, ReferenceStore):
        raise RunError(f"{owner}: the run was saved with other `references`. Resume with the recipe it was begun with.")
    if isinstance(references, ReferenceStore):
        references.load_state_dict(cast("State", saved))


def _batch(rollouts: Rollouts, task: Task | None) -> Batch:
    verdicts = (
        tuple(verdict_on(task, rollouts.problem(row), text) for row, text in enumerate(rollouts.text)) if task else ()
    )
    outcomes = [math.nan if verdict.outcome is None else verdict.outcome for verdict in verdicts]
    outcome = torch.tensor(outcomes or [math.nan] * len(rollouts.text), dtype=torch.float32)
    return Batch.given(rollouts, outcome.to(rollouts.logprobs.device), verdicts=verdicts)
