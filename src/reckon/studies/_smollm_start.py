"""What all arms of the study begin from: a policy that was warmed up, and judges that were fitted from it.

Each piece is made when somebody first asks for it and then kept in a folder, with what it cost beside it. A piece that
was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from reckon import __version__
from reckon.files import write_file
from reckon.studies import _smollm_exam as exam
from reckon.studies import _smollm_lines
from reckon.types import Json, Metrics, Rng

if TYPE_CHECKING:
    from reckon.evaluate import Evaluation
    from reckon.models import LanguageModel
    from reckon.studies._study import Settings

HOME = Path("runs/signals-on-smollm")  # as with any run: under the folder in which the command is given
# What the start depends on; all other settings are the arms'.
KEYS = (
    "model",
    "sums",
    "exams",
    "samples",
    "limit",
    "group",
    "worked",
    "worked_lr",
    "worked_passes",
    "asked",
    "labeled",
    "coverage",
    "completions",
    "balance",
    "fit_lr",
    "head_lr",
)
WARMED, ASKED, LABELED, TRAINED = range(4)  # seeds of the problems that each stage is shown
# A step ends behind each character, so that the outcome stands at every token but those of white space alone.
_BUT_WHITE_SPACE = r"(?<=\S)"
_LONG = 0.7  # of the worked solutions' lengths: the length that is wanted, as arXiv:2505.19439 advises


def digest(settings: Mapping[str, Json]) -> str:
    """Ten hexadecimal digits that stand for these settings under this version of reckon."""
    text = json.dumps({"reckon": __version__, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True, kw_only=True)
class Start:
    """The pieces, by the settings they depend on."""

    settings: Settings

    @classmethod
    def of(cls, settings: Settings) -> Start:
        """The start of an arm: equal settings, equal folder."""
        return cls(settings={key: settings[key] for key in KEYS})

    @cached_property
    def folder(self) -> Path:
        """Where it is kept."""
        return (HOME / f"start-{digest(self.settings)}").absolute()

    @cached_property
    def policy(self) -> Path:
        """A model's folder: the network warmed up on worked solutions."""
        task = exam.make_task(self._sums, seed=WARMED, train=self._int("worked"))
        rows: list[dict[str, object]] = [
            {"prompt": problem.prompt, "completion": task.solution(problem)} for problem in task.problems("train")
        ]
        how: dict[str, Json] = {"lr": self.settings["worked_lr"], "epochs": self.settings["worked_passes"]}
        return self._fit("policy", "sft", rows, str(self.settings["model"]), {**how, "schedule": "constant"}, batch=8)

    @property
    def answers(self) -> Path:
        """A table: responses of the policy to problems of their own, with verdicts, which three judges learn from."""
        path = self.folder / "answers.parquet"

        def make() -> Metrics:
            from reckon.evaluate import evaluate
            from reckon.recipe import write_evaluation

            task = exam.make_task(self._sums, seed=ASKED, train=self._int("asked"))
            rng, k = Rng(("signals-on-smollm", "answers")), self._int("group")
            found = evaluate(self.open(), task, rng=rng, split="train", k=k, greedy=False)
            write_evaluation(found, path)
            return {"generated": float(sum(len(response.tokens) for response in found.responses))}

        self._once("answers", make)
        return path

    @property
    def implicit(self) -> Path:
        """A model's folder: an implicit process reward that learned from the answers (PRIME's start)."""
        how: dict[str, Json] = {"together": True, "balance": self.settings["balance"]}
        return self._fit("implicit", "implicit-ce", self.answers, str(self.policy), how)

    @property
    def tokens(self) -> Path:
        """A model's folder: a head that learned each answer's verdict at its tokens, but line ends (OREAL's start)."""
        how: dict[str, Json] = {"together": True, "balance": self.settings["balance"], "splitter": _BUT_WHITE_SPACE}
        return self._fit("tokens", "outcome-steps", self.answers, str(self.policy), how, head=True)

    @property
    def judge(self) -> Path:
        """A judge's folder: shown the reference, it learned to tell the answers apart (Cooper's start)."""
        how: dict[str, Json] = {"show_reference": True, "balance": self.settings["balance"]}
        return self._fit("judge", "outcome-bce", self.answers, str(self.policy), how, head=True)

    @property
    def labels(self) -> Path:
        """A folder of labels: how often the policy was right when it went on from beginnings of its responses."""
        path = self.folder / "labels"

        def make() -> Metrics:
            from reckon.annotate import Drawing, make_labels

            task = exam.make_task(self._sums, seed=LABELED, train=self._int("labeled"))
            made = make_labels(
                self.open(),
                task,
                list(task.problems("train")),
                path,
                n_cov=self._int("coverage"),
                n_mc=self._int("completions"),
                drawing=Drawing(policy_id="start"),
            )
            return {"generated": float(made.cost.tokens)}

        self._once("labels", make)
        return path

    @property
    def verifier(self) -> Path:
        """A judge's folder: the chance of success of a beginning, learned from the labels."""
        how: dict[str, Json] = {"together": True, "buckets": False}
        return self._fit("verifier", "value", self.labels, str(self.policy), how, head=True)

    def sat(self, name: str) -> Evaluation:
        """What the policy answered in an exam."""
        from reckon.recipe import read_evaluation, write_evaluation

        path = self.folder / f"exam-{name}.parquet"

        def make() -> Metrics:
            found = exam.sit(self.open(), exam.exam_task(self.settings, name), self._int("samples"))
            write_evaluation(found, path)
            return {"generated": float(sum(len(response.tokens) for response in found.responses))}

        self._once(f"exam-{name}", make)
        return read_evaluation(path)

    def give(self, name: str) -> Json:
        """What stands in a recipe as `start:NAME`.

        Args:
            name: a piece that is a folder, `limit`, `total` (how the final answer is read), `lines` (what each line
                did, by rule), or `p` (the wanted length as a share of the limit, of the worked solutions and of nothing
                that a model wrote).
        """
        if name == "limit":
            return self.settings["limit"]
        if name == "total":
            return f"{exam.__file__}:total"
        if name == "lines":
            return f"{_smollm_lines.__file__}:ExactSteps"
        if name == "p":
            return self._wanted_length()
        return str(getattr(self, name))

    def cost(self, stages: list[str]) -> Metrics:
        """What stages have cost together: "generated" and "learned" tokens, and "seconds"."""
        spent = {"generated": 0.0, "learned": 0.0, "seconds": 0.0}
        for stage in stages:
            for name, value in json.loads(self._about(stage).read_text()).items():
                spent[name] += value
        return spent

    def open(self, folder: Path | None = None) -> LanguageModel:
        """The policy as it starts, or another model of the start."""
        from reckon.models import Sampling, load_model

        sampling = Sampling(max_new_tokens=self._int("limit"))
        return load_model(str(folder or self.policy), sampling=sampling, dtype="float32")

    def _fit(
        self,
        name: str,
        kind: str,
        data: Path | list[dict[str, object]],
        model: str,
        how: Mapping[str, Json],
        *,
        batch: int = 16,
        head: bool = False,
    ) -> Path:
        """A folder that `reckon fit` has written, all judges' with the same rates."""
        folder = self.folder / name

        def make() -> Metrics:
            from reckon.fit import Settings, fit_command
            from reckon.runs import Run

            given: dict[str, Json] = {"lr": self.settings["fit_lr"], "batch": batch, "dtype": "float32", **how}
            if head:
                given["head_lr"] = self.settings["head_lr"]
            if kind == "sft":
                given["dev"] = 0.0
            there = (folder / "recipe.yaml").is_file()
            done = fit_command(kind, data, model, folder, Settings(**given), resume=there, show="nothing")  # type: ignore[arg-type]
            if not done.finished:
                raise KeyboardInterrupt
            lines = Run.open(folder).metrics()
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # the model stands beside them
            return {"learned": sum(line.get("fit/tokens", 0.0) for line in lines), "seconds": lines[-1]["seconds"]}

        self._once(name, make)
        return folder / "model"

    def _once(self, stage: str, make: Callable[[], Metrics]) -> None:
        """Makes a stage unless it is there, and writes what it cost; last, so that what is half made is made again."""
        about = self._about(stage)
        if about.exists():
            return
        if stage != "policy":
            _ = self.policy  # comes first, so that no other stage is charged for it
        began = time.perf_counter()
        spent = make()
        write_file(about, json.dumps({"seconds": time.perf_counter() - began, **spent}).encode())

    def _about(self, stage: str) -> Path:
        return self.folder / f"{stage}.json"

    def _wanted_length(self) -> float:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(self.policy))
        task = exam.make_task(self._sums, seed=WARMED, train=self._int("worked"))
        texts = [task.solution(problem) for problem in task.problems("train")]
        lengths = sorted(1 + len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
        return float(lengths[int(_LONG * len(lengths))] / self._int("limit"))

    @property
    def _sums(self) -> Mapping[str, object]:
        return cast("Mapping[str, object]", self.settings["sums"])

    def _int(self, key: str) -> int:
        return cast("int", self.settings[key])
