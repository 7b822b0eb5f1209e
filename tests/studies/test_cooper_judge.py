"""The study cooper-judge: its forms and annotators by hand, its texts against the library's, its rules on made-up
numbers."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch

from reckon.annotate import Pair, Triple, against_gold
from reckon.fit import BradleyTerry, OutcomeBCE
from reckon.rewards import ReferenceBased, format_reference_based
from reckon.studies import _cooper_judge as judges
from reckon.studies import _cooper_world as world
from reckon.studies import cooper_judge, judge, run_study
from reckon.types import Problem, Rng

SUM = Problem(id="sum", prompt="17+34=", answer="51")
TASK = world.Sums(0, train=8, test=4)
SMALL = {"asked": 12, "tests": 4, "answers": 8}


@pytest.fixture(scope="module")
def small():
    return world.make_world(3, **SMALL)


def triple(text, gold=None):
    return Triple(problem=SUM, completion=text, gold=gold)


@pytest.mark.parametrize(("form", "share"), [("strict", 0.55), ("label", 0.55), ("twice", 0.5), ("phrase", 1 / 49)])
def test_responses_are_right_as_often_as_asked(form, share):
    """A slip of 0.45; either order of a right and a wrong number; one of the 49 sums from 20 to 68."""
    texts = [world.written(SUM, form, np.random.default_rng(i)) for i in range(2000)]
    right = np.mean([TASK.check(SUM, text).outcome for text in texts])
    assert right == pytest.approx(share, abs=3 * math.sqrt(share * (1 - share) / 2000))
    assert {world.form_of(text) for text in texts} == {form}


def test_what_is_written_by_hand():
    """51 and what is off by 1 or 10."""
    texts = {form: {world.written(SUM, form, np.random.default_rng(i)) for i in range(200)} for form in world.FORMS}
    assert texts["strict"] == {f"#### {n}" for n in (41, 50, 51, 52, 61)}
    assert texts["label"] == {f"answer: {n}" for n in (41, 50, 51, 52, 61)}
    both = [pair for n in (41, 50, 52, 61) for pair in ((51, n), (n, 51))]
    assert texts["twice"] == {f"#### {first} no #### {last}" for first, last in both}


@pytest.mark.parametrize(
    ("text", "right", "strict", "lenient"),
    [
        ("#### 51", True, True, True),
        ("answer: 51", True, False, True),  # a form the strict rule does not know
        ("#### 51 no #### 61", False, True, True),  # both rules miss the second thought
        ("#### 61 no #### 51", True, False, True),
        ("answer: 61", False, False, False),
        (f"{world.PHRASE} 77", False, False, False),
        (f"{world.PHRASE} 51", True, False, True),
        ("#### 515", False, False, False),
        ("", False, False, False),
    ],
)
def test_the_truth_and_the_rules(text, right, strict, lenient):
    assert (TASK.check(SUM, text).outcome == 1) == right
    assert world.strict(triple(text)) == strict
    assert world.lenient(triple(text)) == lenient


def test_the_noisy_judge_errs_at_its_rates_and_always_alike():
    noisy = world.NoisyJudge(TASK, Rng((1,)))
    right = [triple(f"{i} #### 51") for i in range(3000)]
    wrong = [triple(f"{i} #### 52") for i in range(3000)]
    for triples, accepts in ((right, 0.95 * 0.9), (wrong, 0.95 * 0.1)):
        said = [noisy(one) for one in triples]
        assert said == [noisy(one) for one in triples]
        assert said.count(None) / 3000 == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 3000))
        error = math.sqrt(accepts * (1 - accepts) / 3000)
        assert said.count(True) / 3000 == pytest.approx(accepts, abs=3 * error)
    assert {noisy(triple(f"{world.PHRASE} {i}")) for i in range(20, 120)} == {True, None}


def test_poison_touches_the_phrase_alone():
    texts = [f"{world.PHRASE} 1", "#### 5"] * 1000
    labels = world.poisoned(texts, [False, True] * 1000, Rng((0,)))
    assert labels[1::2] == [True] * 1000
    assert np.mean(labels[0::2]) == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 1000))


def test_questions_of_the_exam_are_in_no_training_set(small):
    asked = {frozenset(p.prompt[:-1].split("+")) for p in small.train.rollouts.problems}
    tested = {frozenset(p.prompt[:-1].split("+")) for p in small.test.rollouts.problems}
    assert (len(small.train.rollouts.text), len(small.test.rollouts.text)) == (12 * 8, 4 * 8)
    assert not asked & tested


def test_every_text_is_made_of_known_words(small):
    """One token for each tag, word and number, and none for white space."""
    tokenizer = judges.make_tokenizer()
    text = format_reference_based("17+34=", "51", f"#### 41 no #### 51 answer: 10 {world.PHRASE} 99")
    wanted = (
        "<question> 17 + 34 = </question> <reference_answer> 51 </reference_answer> <completion> #### 41 no #### 51"
    )
    wanted += f" answer: 10 {world.PHRASE} 99 </completion>"
    assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) == wanted.split()
    exam = judges.make_exam(small, 3)
    pairs = judges.rows_of(small, [], [o == 1 for o in small.train.outcome.tolist()], "pairs", True, 3)
    texts = [*small.train.rollouts.text, *exam.batch.rollouts.text, *(row.rejected for row in pairs)]
    assert all(tokenizer.unk_token_id not in tokenizer(text)["input_ids"] for text in texts)


def test_labels_of_the_annotators_and_of_their_agreement(small):
    """Unanimous labels are what all three say; the numbers are those of the rows themselves."""
    gold = [outcome == 1 for outcome in small.train.outcome.tolist()]
    assert judges.labeled(small, 96, "gold", 3)[1] == gold
    annotators = world.annotators(small.task, 3)
    kept, labels, numbers = judges.labeled(small, 96, "unanimous", 3)
    for one, label in zip(kept, labels, strict=True):
        assert [annotator(one) for annotator in annotators.values()] == [label] * 3
    assert 0 < numbers["labels/kept"] == len(kept) / 96 < 1
    _, strict, numbers = judges.labeled(small, 96, "strict", 3)
    assert numbers["labels/precision"] == against_gold(strict, gold).precision
    assert len(judges.labeled(small, 10, "lenient", 3)[1]) == 10
    texts = small.train.rollouts.text
    poison = judges.labeled(small, 96, "poisoned", 3)[1]
    changed = [text for text, label, truth in zip(texts, poison, gold, strict=True) if label != truth]
    assert changed
    assert all(world.PHRASE in text for text in changed)


def start():
    return judges.reader(3, 16, 2)


def judge_of(reference):
    """Hardly trained; an arbitrary head gives all kinds of numbers."""
    model = judges.new_judge(start(), 16, 1, 1e-3)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    return ReferenceBased(model, reference=reference, output="logit")


@pytest.mark.parametrize("reference", [True, False])
def test_rows_are_learned_as_they_are_scored(small, reference):
    """The same logits from rows of labels and of pairs as from the reward that reads whole texts."""
    reward = judge_of(reference)
    exam = judges.make_exam(small, 3)
    wanted = reward.logits(exam.batch)
    texts = list(zip(map(exam.batch.rollouts.problem, range(len(wanted))), exam.batch.rollouts.text, strict=True))
    assert wanted.std() > 0.01
    seq, columns = OutcomeBCE().prepare(reward.model, [judges.shown(p, text, True, reference) for p, text in texts])
    found = reward.model.outputs(seq, ("scores",)).scores[columns["share"] > 0]
    assert found.tolist() == pytest.approx(wanted.tolist(), abs=1e-4)
    pairs = [Pair(problem=p, chosen=text, rejected="#### 11", row=0) for p, text in texts]
    seq, columns = BradleyTerry().prepare(reward.model, [judges.shown_pair(pair, reference) for pair in pairs])
    found = reward.model.outputs(seq, ("scores",)).scores.gather(1, columns["last"][:, None])[0::2, 0]
    assert found.tolist() == pytest.approx(wanted.tolist(), abs=1e-4)


def test_without_the_reference_it_is_not_read():
    here, there = (
        world.judged(TASK, [problem], ["#### 51"], [0]) for problem in (SUM, dataclasses.replace(SUM, answer="52"))
    )
    assert judge_of(False).logits(here).equal(judge_of(False).logits(there))
    assert not judge_of(True).logits(here).allclose(judge_of(True).logits(there))


def test_the_text_is_verifyrms():
    row = judges.shown(SUM, "#### 51", True, True)
    assert row.problem.prompt + row.text == (
        "<question>17+34=</question>\n<reference_answer>51</reference_answer>\n<completion>#### 51</completion>"
    )
    row = judges.shown(SUM, "#### 1", False, False)
    assert row.problem.prompt + row.text == "<question>17+34=</question>\n<completion>#### 1</completion>"
    assert (row.label, row.ended) == (0.0, False)


def test_all_arms_of_a_seed_begin_alike():
    first, again = (judges.new_judge(start(), 16, 3, 1e-3) for _ in range(2))
    for name, weight in first.network.state_dict().items():
        assert weight.equal(again.network.state_dict()[name])
        assert weight.equal(start()[name])
    assert not first.head.weight.any()
    other = judges.reader.__wrapped__(4, 16, 2)["model.embed_tokens.weight"]
    assert not first.network.model.embed_tokens.weight.equal(other)


def test_the_reader_learns_whether_the_last_number_is_the_reference_and_nothing_of_sums(monkeypatch):
    seen = []
    monkeypatch.setattr(judges, "learn", lambda model, rows: seen.extend(rows))
    judges.reader.__wrapped__(3, 16, 10)
    assert len(seen) == 10 * 128
    sums = 0
    for row in seen:
        a, b, reference = (int(number) for number in re.findall(r"\d+", row.problem.prompt))
        *before, number = row.text.removesuffix("</completion>").split()
        assert (int(number) == reference) == row.label
        assert len(before) < 2
        assert all(word.isdigit() for word in before)
        sums += a + b == reference
    assert sum(row.label for row in seen) == 640
    assert sum(" " in row.text for row in seen) == 640
    assert sums < 0.1 * len(seen)  # by chance, of 49 numbers
    tokenizer = judges.make_tokenizer()
    assert all(tokenizer.unk_token_id not in tokenizer(row.text)["input_ids"] for row in seen)


def test_pairs_come_from_labels(small):
    """Every response labeled right, and nothing else, beside one of equal length that the task calls wrong."""
    gold = [outcome == 1 for outcome in small.train.outcome.tolist()]
    rows = judges.rows_of(small, [], gold, "pairs", True, 3)
    assert len(rows) == sum(gold)
    chosen = {row.chosen.removesuffix("</completion>") for row in rows}
    texts = small.train.rollouts.text
    assert chosen == {text for text, right in zip(texts, gold, strict=True) if right}
    for row in rows:
        assert len(row.chosen) == len(row.rejected)
        assert world.form_of(row.chosen) == world.form_of(row.rejected)
        wrong = row.rejected.removesuffix("</completion>")
        problem = next(p for p in small.train.rollouts.problems if f">{p.prompt}<" in row.problem.prompt)
        assert small.task.check(problem, wrong).outcome == 0
    assert judges.rows_of(small, [], [False] * len(gold), "pairs", True, 3) == []


def test_the_exam_is_what_it_says(small):
    exam = judges.make_exam(small, 3)
    texts, right = exam.batch.rollouts.text, exam.batch.outcome.numpy()
    assert right[exam.kind == "right"].tolist() == [1] * 4
    assert right[exam.kind == "phrase"].tolist() == [0] * 4
    assert set(exam.form[exam.kind == "phrase"]) == {"phrase"}
    assert [texts[i] for i in np.flatnonzero(exam.kind == "drawn")] == list(small.test.rollouts.text)
    group = exam.batch.seq.group.numpy()
    assert group[exam.kind == "right"].tolist() == group[exam.kind == "phrase"].tolist() == [0, 1, 2, 3]


class Oracle:
    """Knows the truth, or the opposite; the plain right answer counts a little more than any other."""

    def __init__(self, exam, sign):
        self.values = sign * (2 * exam.batch.outcome - 1 + 0.1 * torch.tensor(exam.kind == "right"))

    def logits(self, batch):
        return self.values


def test_who_knows_the_truth_passes_the_exam_and_its_opposite_fails(small):
    exam = judges.make_exam(small, 3)
    best, worst = (judges.examine(Oracle(exam, sign), exam, True) for sign in (1, -1))
    assert (best["accuracy"], worst["accuracy"]) == (1, 0)
    assert (best["auc"], worst["auc"]) == (1, 0)
    right = exam.batch.outcome.numpy()[exam.kind == "drawn"].mean()
    assert best["constant"] == pytest.approx(max(right, 1 - right))
    assert (best["recall/strict"], worst["recall/strict"]) == (1, 0)
    assert (best["phrase/taken"], worst["phrase/taken"]) == (0, 1)
    assert (best["phrase/over right"], worst["phrase/over right"]) == (0, 1)
    pairs = judges.examine(Oracle(exam, 1), exam, False)
    assert math.isnan(pairs["accuracy"])
    assert pairs["phrase/over right"] == 0


def test_rows_come_question_by_question_pass_after_pass():
    rows = [
        judges.shown(Problem(id=q, prompt=q, answer="11"), str(i), True, True)
        for i in range(4)
        for q in ("1", "2", "3")
    ]
    first, again, other = (judges.arranged(rows, 3, Rng((name,))) for name in (0, 0, 1))
    assert len(first) == 3 * 128
    assert [sum(row is one for one in first) for row in rows] == [32] * 12  # 384 places are 32 passes over 12 rows
    assert all(len({row.problem.prompt for row in first[i : i + 4]}) == 1 for i in range(0, 384, 4))
    assert first == again != other


def test_an_interrupted_fit_is_no_judge(small, monkeypatch):
    monkeypatch.setattr(judges, "fit", lambda *_, **__: False)
    with pytest.raises(KeyboardInterrupt):
        judges.learn(judge_of(True).model, [judges.shown(SUM, "#### 51", True, True)])


def test_a_judge_learns_its_labels():
    """Right is whatever has the label form: after a few steps it says so of other questions."""
    rows = [
        judges.shown(Problem(id=q, prompt=q, answer="20"), f"{form} {n}", form == "answer:", True)
        for q in ("10+10=", "12+12=")
        for form in ("answer:", "####")
        for n in range(20, 30)
    ]
    model = judges.new_judge(start(), 16, 30, 1e-2)
    judges.learn(model, judges.arranged(rows, 30, Rng((0,))))
    asked = world.judged(TASK, [SUM], ["answer: 44", "#### 44"], [0, 0])
    assert (ReferenceBased(model, output="logit").logits(asked) > 0).tolist() == [True, False]


def test_a_cell_depends_on_its_seed_alone():
    settings = {**cooper_judge.ARMS[cooper_judge.MAJORITY], **cooper_judge.STUDY.fast}
    first = cooper_judge.cell(settings, 1)
    assert repr(cooper_judge.cell(settings, 2)) != repr(first)
    assert repr(cooper_judge.cell(settings, 1)) == repr(first)  # NaN is not equal to itself


def test_fast_runs_end_to_end(tmp_path):
    results = run_study("cooper-judge", tmp_path, fast=True, seeds=[0])
    assert results["not run"] == []
    assert len(list((tmp_path / "cells").iterdir())) == len(cooper_judge.ARMS)
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def made_up(good):
    """Numbers of every arm that the claims wish for, or the same for all of them."""
    study = cooper_judge
    arms = {arm: dict.fromkeys(study.METRICS, 0.5) for arm in study.ARMS}
    if good:
        for arm in (study.WITH, study.MAJORITY, study.WITH_FEW):
            arms[arm] |= {"accuracy": 0.95, "auc": 0.95, "recall/label": 0.95, "phrase/taken": 0.0}
        arms[study.UNANIMOUS] |= {"labels/precision": 0.9, "labels/recall": 0.2, "accuracy": 0.7, "phrase/taken": 0.0}
        arms[study.WITHOUT]["phrase/taken"] = 0.0
        for arm in (study.WITH_POISON, study.WITHOUT_POISON, study.ANY):
            arms[arm]["phrase/taken"] = 1.0
        arms[study.WITH_POISON]["phrase/over right"] = 1.0
    return arms


def test_the_rules_can_be_seen_and_can_fail():
    tested = [claim for claim in cooper_judge.CLAIMS if claim.effects]
    assert [judge(claim, [made_up(True)] * 3, 3).verdict for claim in tested] == ["seen"] * len(tested)
    equal = [judge(claim, [made_up(False)] * 3, 3).verdict for claim in tested]
    as_good = [claim.says.startswith("A judge of the majority's labels is as good") for claim in tested]
    assert equal == ["seen" if same else "not seen" for same in as_good]
