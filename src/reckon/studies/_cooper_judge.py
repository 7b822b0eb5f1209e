"""Judges of the study cooper-judge: how responses are labeled for them, how they are fitted, how they are examined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from reckon.annotate import (
    AnnotationPolicy,
    ChangeNumber,
    Pair,
    Triple,
    against_gold,
    annotate,
    answer_of,
    build_pairs,
    triples_of,
)
from reckon.evaluate import auc
from reckon.fit import BradleyTerry, Example, FitLoss, OutcomeBCE, Paired, Plan, Unpaired, by_prompt, fit
from reckon.models import LanguageModel, Optimization
from reckon.rewards import ReferenceBased, format_reference_based, question_of
from reckon.studies._cooper_world import (
    FORMS,
    LARGEST,
    PHRASE,
    SLIPS,
    SMALLEST,
    World,
    annotators,
    form_of,
    judged,
    poisoned,
)
from reckon.types import Batch, Problem, Rng, Rollouts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

BATCH = 128  # texts to a step: responses, or half as many pairs
LAYERS, HEADS = 2, 4
READER_LR = 3e-3
READ = 8  # texts to each of the reader's references
_END = "</completion>"
_TAGS = ("<question>", "</question>", "<reference_answer>", "</reference_answer>", "<completion>", _END)
_SPECIAL = ("<pad>", "<end>", "<unknown>")
WORDS = (*_SPECIAL, *_TAGS, "+", "=", "####", "answer:", "no", *PHRASE.split(), *map(str, range(10, 100)))


def labeled(world: World, count: int, kind: str, seed: int) -> tuple[list[Triple], list[bool], dict[str, float]]:
    """Labels for the first responses of a world, and how good they are.

    Args:
        world: whose responses.
        count: how many responses to label, those that get no label included.
        kind: "gold", "poisoned", an annotator, or a policy of all annotators.
        seed: of the annotators.

    Returns:
        The triples that got a label, their labels, and the labels' numbers.
    """
    right = [outcome == 1 for outcome in world.train.outcome[:count].tolist()]
    triples = [replace(triple, gold=gold) for triple, gold in zip(triples_of(first(world, count)), right, strict=True)]
    if kind in ("gold", "poisoned"):
        texts = [triple.completion for triple in triples]
        kept, labels = triples, right
        if kind == "poisoned":
            labels = poisoned(texts, right, Rng((seed, "cooper-judge", "poison")))
        found = against_gold(labels, right)
    else:
        every = annotators(world.task, seed)
        together = kind in get_args(AnnotationPolicy)
        policy = cast("AnnotationPolicy", kind) if together else "unanimous"
        kept, labels, report = annotate(triples, every if together else {kind: every[kind]}, policy)
        assert report.labels_gold is not None
        found = report.labels_gold
    numbers = {
        "labels/kept": len(kept) / len(triples),
        "labels/accuracy": found.accuracy,
        "labels/precision": found.precision,
        "labels/recall": found.kept_recall,
    }
    return kept, labels, numbers


def first(world: World, count: int) -> Rollouts:
    """The first `count` responses to learn from, or all."""
    rollouts = world.train.rollouts
    return rollouts.take(torch.arange(min(count, len(rollouts.text))))


def rows_of(
    world: World, kept: Sequence[Triple], labels: Sequence[bool], loss: str, reference: bool, seed: int
) -> list[Example]:
    """What a judge learns from.

    Args:
        world: whose responses were labeled.
        kept: the triples that got a label.
        labels: theirs; for pairs every one of the world's first responses must have one.
        loss: "bce", or "pairs": every response labeled right beside the same one with another final number.
        reference: whether the judge is shown it.
        seed: of the corruptor.
    """
    if loss == "bce":
        return [
            shown(triple.problem, triple.completion, label, reference)
            for triple, label in zip(kept, labels, strict=True)
        ]
    outcome = torch.tensor([float(label) for label in labels])
    change, rng = ChangeNumber(read=answer_of(world.task)), Rng((seed, "cooper-judge", "pairs"))
    made = build_pairs(first(world, len(labels)), outcome, world.task, change, rng, positive="all")
    return [shown_pair(pair, reference) for pair in made.pairs]


def shown(problem: Problem, text: str, label: bool, reference: bool) -> Unpaired:
    """A response in the template of `ReferenceBased`, cut where the completion begins.

    The judge reads the very tokens that it will be scored on, and what the responses to a question share is computed
    once, as it is not for whole texts.
    """
    return Unpaired(problem=_asked(problem, reference), text=text + _END, label=float(label), ended=False)


def shown_pair(pair: Pair, reference: bool) -> Paired:
    """A pair in the same template."""
    problem = _asked(pair.problem, reference)
    return Paired(problem=problem, chosen=pair.chosen + _END, rejected=pair.rejected + _END, ended=(False, False))


def _asked(problem: Problem, reference: bool) -> Problem:
    whole = format_reference_based(question_of(problem), problem.answer if reference else None, "")
    return replace(problem, prompt=whole.removesuffix(_END))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each tag, word and number. White space is none."""
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unknown>"))
    word = Regex(r"<[^>]*>|\d+|#+|[+=]|[^<>\d#+=]+")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(word, behavior="isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>", padding_side="right"
    )


@lru_cache(maxsize=1)
def reader(seed: int, width: int, steps: int) -> Mapping[str, Tensor]:
    """Weights that every judge of a seed starts from, as VerifyRM starts from those of a language model.

    They have learned to read, and nothing of sums or of forms: whether the last number of a text, alone or behind
    another one, is that of the reference, which is any number and not the question's sum.
    """
    generator = Rng((seed, "cooper-judge", "reader")).numpy()
    rows: list[Example] = []
    for place in range(steps * BATCH // READ):
        a, b = generator.integers(SMALLEST, LARGEST + 1, size=2).tolist()
        reference, before = generator.integers(2 * SMALLEST, 2 * LARGEST + 1, size=2).tolist()
        problem = Problem(id=str(place), prompt=f"{a}+{b}=", answer=str(reference))
        for row, slip in enumerate(generator.choice(SLIPS, size=READ).tolist()):
            number = reference + (slip if row % 2 else 0)
            text = str(number) if row < READ // 2 else f"{before} {number}"
            rows.append(shown(problem, text, number == reference, reference=True))
    model = _model(_network(width, Rng((seed, "cooper-judge", "weights"))), steps, READER_LR)
    learn(model, rows)
    return {name: weight.detach().clone() for name, weight in model.network.state_dict().items()}


def new_judge(start: Mapping[str, Tensor], width: int, steps: int, lr: float) -> LanguageModel:
    """The reader with a new value head: the same in all arms of a seed."""
    network = _network(width, Rng(()))
    network.load_state_dict(dict(start))
    return _model(network, steps, lr)


def _network(width: int, rng: Rng) -> PreTrainedModel:
    """A Llama of two layers with random weights, whatever the global random state is."""
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=64,
        initializer_range=width**-0.5,  # the usual 0.02 is for widths in the thousands, and says next to nothing here
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.integer() % 2**32)
        return LlamaForCausalLM(config)


def _model(network: PreTrainedModel, steps: int, lr: float) -> LanguageModel:
    return LanguageModel(
        network,
        make_tokenizer(),
        optimizer=Optimization(lr=lr, warmup=steps // 20, schedule="cosine", total=max(steps, 1), weight_decay=0.01),
        dtype="float32",
        device="cpu",
        tokens_per_batch=4096,
        value_head=True,
    )


def arranged(rows: Sequence[Example], steps: int, rng: Rng) -> list[Example]:
    """What so many steps learn from, in order: pass after pass, and in each the rows of a question together."""
    places, wanted = list[int](), steps * batch_of(rows)
    while len(places) < wanted:
        places += by_prompt(rows, rng.child(len(places)))
    return [rows[place] for place in places[:wanted]]


def batch_of(rows: Sequence[Example]) -> int:
    """Rows to a step."""
    return BATCH // 2 if isinstance(rows[0], Paired) else BATCH


def learn(model: LanguageModel, rows: Sequence[Example]) -> None:
    """Takes a step for every mini-batch of `rows`, in their order."""
    loss: FitLoss = BradleyTerry() if isinstance(rows[0], Paired) else OutcomeBCE()
    if not fit(model, rows, loss, Plan(batch=batch_of(rows), show="nothing"), order=lambda rows, _: range(len(rows))):
        raise KeyboardInterrupt  # `fit` stops in good order; half a judge must not pass for one


@dataclass(frozen=True, kw_only=True, eq=False)
class Exam:
    """What a judge is asked about questions that nobody learned from."""

    batch: Batch  # N responses
    kind: NDArray[np.str_]  # [N] "drawn" as those it learned from, or, once a question, "right" or "phrase"
    form: NDArray[np.str_]  # [N]


@lru_cache(maxsize=1)
def make_exam(world: World, seed: int) -> Exam:
    """The world's other responses, and for each question a right one beside the phrase with a wrong number."""
    rng = Rng((seed, "cooper-judge", "exam"))
    drawn, problems = world.test.rollouts, world.test.rollouts.problems
    rows: list[tuple[int, str, str]] = []
    for g, problem in enumerate(problems):
        rows += [(g, text, "drawn") for text, of in zip(drawn.text, drawn.seq.group.tolist(), strict=True) if of == g]
        number = int(problem.answer or 0)
        off = number + int(rng.child(g).numpy().choice(SLIPS))
        rows += [(g, f"#### {number}", "right"), (g, f"{PHRASE} {off}", "phrase")]
    texts = [text for _, text, _ in rows]
    return Exam(
        batch=judged(world.task, problems, texts, [g for g, _, _ in rows]),
        kind=np.array([kind for _, _, kind in rows]),
        form=np.array([form_of(text) for text in texts]),
    )


def examine(judge: ReferenceBased, exam: Exam, calibrated: bool) -> dict[str, float]:
    """What a judge says of the exam, and what is had by always saying the same ("constant").

    A logit learned from pairs has no zero, so such a judge calls nothing right or wrong: NaN.
    """
    values, right = judge.logits(exam.batch).double().numpy(), exam.batch.outcome.numpy() == 1
    drawn = exam.kind == "drawn"
    taken = np.where(values > 0, 1.0, 0.0) if calibrated else np.full(len(values), np.nan)
    phrase, plain = values[exam.kind == "phrase"], values[exam.kind == "right"]  # both in the questions' order
    numbers = {
        "accuracy": 1 - _mean(np.abs(taken - right)[drawn]),
        "constant": max(float(right[drawn].mean()), 1 - float(right[drawn].mean())),
        "auc": auc(values[drawn], right[drawn].astype(np.float64)),
        "phrase/taken": _mean(taken[exam.kind == "phrase"]),
        "phrase/over right": _mean(phrase > plain),
    }
    for form in FORMS:
        numbers[f"accuracy/{form}"] = 1 - _mean(np.abs(taken - right)[drawn & (exam.form == form)])
        numbers[f"recall/{form}"] = _mean(taken[drawn & right & (exam.form == form)])
    return numbers


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else np.nan
