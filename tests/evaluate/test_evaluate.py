"""A policy of fixed answers, so that every score can be counted by hand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch

from reckon.errors import InputError
from reckon.evaluate import Evaluation, compare, compare_shares, evaluate, summarize
from reckon.types import End, Problem, Rng, Rollouts, Sequences, Stream, Verdict

RNG = Rng((0,))


def problems(n, domain="default"):
    return [Problem(id=f"p{i}", prompt=f"what is {i}?", answer=str(i), domain=domain) for i in range(n)]


@dataclass
class Fixed:
    """A task whose answers are the numbers themselves; "?" is unreadable and "!" breaks the checker."""

    posed: Sequence[Problem]
    name: str = "fixed"

    def problems(self, split):
        return self.posed if split == "test" else []

    def check(self, problem, text):
        if text == "!":
            return Verdict(outcome=None, answer=None, reason="crashed")
        if text == "?":
            return Verdict(outcome=0.0, answer=None, reason="no answer")
        if problem.answer is None:
            return Verdict(outcome=None, answer=text, reason="no reference")
        right = text == problem.answer
        return Verdict(outcome=float(right), answer=text, reason="right" if right else "wrong")


@dataclass
class Says:
    """Gives the answers it was told to, by problem id; greedily the first."""

    answers: dict[str, list[str]]

    def rollouts(self, posed, k):
        text = tuple(self.answers[problem.id][j] for problem in posed for j in range(k))
        n, width = len(text), max(map(len, text)) + 1
        lengths = torch.tensor([len(words) + 1 for words in text])
        mask = torch.arange(width) < lengths[:, None]
        return Rollouts(
            seq=Sequences(
                prompts=tuple(torch.tensor([1]) for _ in posed),
                group=torch.arange(len(posed)).repeat_interleave(k),
                tokens=torch.ones(n, width, dtype=torch.int64),
                mask=mask,
            ),
            problems=tuple(posed),
            text=text,
            pieces=tuple((*words, "") for words in text),
            logprobs=torch.zeros(n, width),
            end=torch.tensor([int(End.LENGTH if words == "?" else End.EOS) for words in text]),
        )

    def sample(self, problems, k, rng, prefixes=None):
        return self.rollouts(problems, k)

    def greedy(self, problems):
        return self.rollouts(problems, 1)


def test_greedy_scores():
    """Of p0..p3 two are right, one is wrong, one broke the checker."""
    policy = Says({"p0": ["0"], "p1": ["1"], "p2": ["7"], "p3": ["!"]})
    score = evaluate(policy, Fixed(problems(4)), rng=RNG).metrics
    assert score["pass@1"] == pytest.approx(2 / 3)  # the unknown one leaves the denominator
    assert (score["items"], score["items/unknown"], score["unknown"]) == (4, 1, 0.25)
    # Wilson, 2 of 3: center (.66667 + .64024) / (1 + 1.28049) = .57309, half .85943 * sqrt(.07407 + .10671) = .36541
    assert (score["low"], score["high"]) == pytest.approx((0.20766, 0.93851), abs=2e-5)
    assert score["constant"] == 0.25
    assert score["length/mean"] == 2.0  # one character and the end token
    assert "majority" not in score


def test_a_difference_of_shares_is_at_most_all():
    """Right, wrong to wrong, wrong: mean -1/2, error 1/2, t(.975, 1) = 12.71: unbounded, -6.85 to 5.85."""
    before, after = Says({"p0": ["0"], "p1": ["7"]}), Says({"p0": ["7"], "p1": ["7"]})
    found = compare(*(evaluate(policy, Fixed(problems(2)), rng=RNG) for policy in (before, after))).difference
    assert (found.mean, found.low, found.high) == (-0.5, -1.0, 1.0)


def test_where_nobody_knows_no_number_is_told():
    found = evaluate(Says({"p0": ["!"], "p1": ["!"]}), Fixed(problems(2)), rng=RNG)
    assert str(found) == "No verdict on any of 2 problems: nobody knows whether the answers are right"


def test_sampled_scores():
    """p0: 3 of 4 right; p1: 1 of 4, outvoted; p2: nothing readable; p3: 1 right, 2 wrong, 1 unknown."""
    answers = {
        "p0": ["0", "0", "5", "0"],
        "p1": ["1", "5", "5", "?"],
        "p2": ["?", "?", "?", "?"],
        "p3": ["3", "!", "4", "8"],
    }
    score = evaluate(Says(answers), Fixed(problems(4)), k=4, greedy=False, rng=RNG).metrics
    assert score["pass@1"] == pytest.approx((3 / 4 + 1 / 4 + 0 + 1 / 3) / 4)
    # pass@2: p0 1 - C(1,2)/C(4,2) = 1; p1 1 - C(3,2)/C(4,2) = 1/2; p2 0; p3 of three 1 - C(2,2)/C(3,2) = 2/3
    assert score["pass@2"] == pytest.approx((1 + 1 / 2 + 0 + 2 / 3) / 4)
    assert score["pass@2/unknown"] == 0
    assert score["pass@4"] == pytest.approx((1 + 1 + 0) / 3)  # p3 has only three verdicts
    assert score["pass@4/unknown"] == 1
    assert score["majority"] == pytest.approx((1 + 0 + 0 + 1) / 4)  # p3: a three-way tie, "3" came first
    assert score["unparsable"] == pytest.approx(5 / 16)  # the crash is unknown, not unparsable
    assert score["unknown"] == pytest.approx(1 / 16)
    assert score["truncated"] == pytest.approx(5 / 16)
    assert "sampled/pass@1" not in score


def test_greedy_and_samples_side_by_side():
    answers = {"p0": ["5", "0", "0"], "p1": ["1", "1", "6"]}
    evaluation = evaluate(Says(answers), Fixed(problems(2)), k=3, rng=RNG)
    score = evaluation.metrics
    assert score["pass@1"] == 0.5  # greedy says 5 and 1
    assert score["sampled/pass@1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert score["pass@3"] == 1.0
    assert score["majority"] == 1.0
    assert [(r.problem, r.greedy, r.sample) for r in evaluation.responses[:4]] == [
        ("p0", True, 0),
        ("p0", False, 0),
        ("p0", False, 1),
        ("p0", False, 2),
    ]
    assert [r.row for r in evaluation.responses] == list(range(8))
    assert [r.group for r in evaluation.responses] == [0] * 4 + [1] * 4


def test_two_samples_can_vote_and_five_make_a_ladder():
    two = evaluate(Says({"p0": ["5", "0"]}), Fixed(problems(1)), k=2, greedy=False, rng=RNG).metrics
    assert (two["majority"], two["pass@2"]) == (0.0, 1.0)  # a tie: the first seen, which is wrong
    five = evaluate(Says({"p0": ["0"] * 5}), Fixed(problems(1)), k=5, greedy=False, rng=RNG).metrics
    assert [name for name in five if name.startswith("pass@") and "/" not in name] == [
        "pass@1",
        "pass@2",
        "pass@4",
        "pass@5",
    ]


def test_a_vote_nobody_can_judge_is_unknown():
    """p0: nothing read, and one answer unknown; p1: the winner's verdicts are unknown, then right, then wrong."""
    evaluation = evaluate(Says({"p0": ["?", "!"], "p1": ["?", "?"]}), Fixed(problems(2)), k=2, greedy=False, rng=RNG)
    rows = evaluation.responses
    assert math.isnan(summarize(rows[:2])["majority"])
    voted = [replace(rows[2], outcome=outcome, parsed="1") for outcome in (None, 1.0, 0.0)]
    assert summarize([*rows[:2], *voted])["majority"] == 1.0


def test_every_response_keeps_its_own_length():
    evaluation = evaluate(Says({"p0": ["0"], "p1": ["12345"]}), Fixed(problems(2)), rng=RNG)
    assert [len(r.tokens) for r in evaluation.responses] == [2, 6]  # the end token counts
    assert [len(r.logprobs) for r in evaluation.responses] == [2, 6]
    assert evaluation.metrics["length/mean"] == 4.0


def test_every_chunk_draws_from_numbers_of_its_own():
    class Noting(Says):
        keys = ()
        asked = ()

        def sample(self, problems, k, rng, prefixes=None):
            self.keys += (rng.key,)
            self.asked += (len(problems) * k,)
            return super().sample(problems, k, rng)

    policy = Noting({f"p{i}": ["0", "0"] for i in range(130)})
    evaluation = evaluate(policy, Fixed(problems(130)), k=2, rng=RNG)
    assert policy.asked == (64, 64, 64, 64, 4)  # answers, not problems: 64 samples of 64 problems would fill the memory
    assert len(set(policy.keys)) == 5
    assert [r.group for r in evaluation.responses] == [i // 3 for i in range(390)]


def test_per_domain():
    posed = [*problems(2, "odd"), Problem(id="p9", prompt="9?", answer="9", domain="even")]
    score = evaluate(Says({"p0": ["0"], "p1": ["5"], "p9": ["9"]}), Fixed(posed), rng=RNG).metrics
    assert score["domain/odd/pass@1"] == 0.5
    assert score["domain/even/pass@1"] == 1.0
    assert score["domain/odd/items"] == 2


def test_half_a_point_is_not_right():
    evaluation = evaluate(Says({"p0": ["0"]}), Fixed(problems(1)), rng=RNG)
    partial = replace(evaluation.responses[0], outcome=0.5, reason="partial")
    assert summarize([partial])["pass@1"] == 0.0


def test_no_reference_at_all():
    score = evaluate(Says({"p0": ["0"]}), Fixed([Problem(id="p0", prompt="0?")]), rng=RNG).metrics
    assert math.isnan(score["pass@1"])
    assert math.isnan(score["constant"])
    assert (score["low"], score["high"], score["unknown"]) == (0.0, 1.0, 1.0)


def test_it_says_so_in_words():
    said = str(evaluate(Says({"p0": ["0"], "p1": ["!"]}), Fixed(problems(2)), rng=RNG))
    assert "100.0% of 1 problems right" in said
    assert "1 problems left out, their verdict is unknown" in said


def test_names_in_the_log():
    logged = evaluate(Says({"p0": ["0"]}), Fixed(problems(1)), rng=RNG).logged("dev")
    assert logged["eval/dev/pass@1"] == 1.0


def test_n_chooses_the_same_problems_every_time_and_not_the_first():
    task = Fixed(problems(200))
    policy = Says({f"p{i}": [str(i)] for i in range(200)})
    ticks = []
    one = evaluate(policy, task, n=100, rng=RNG, progress=lambda done, total: ticks.append((done, total)))
    two = evaluate(policy, task, n=100, rng=Rng((1,)))
    chosen = [r.problem for r in one.responses]
    assert chosen == [r.problem for r in two.responses]
    assert len(set(chosen)) == 100
    assert any(int(problem[1:]) >= 150 for problem in chosen)
    assert ticks == [(64, 100), (100, 100)]
    assert {r.prompt == f"what is {r.problem[1:]}?" for r in one.responses} == {True}


def test_a_chat_prompt_is_flattened():
    chat = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "0?"})
    evaluation = evaluate(Says({"p0": ["0"]}), Fixed([Problem(id="p0", prompt=chat, answer="0")]), rng=RNG)
    assert evaluation.responses[0].prompt == "system: be brief\n\nuser: 0?"


def test_it_survives_a_run_folder(tmp_path):
    from reckon.runs import Run, read_evaluations

    answers = {"p0": ["5", "0", "!"], "p1": ["1", "1", "?"]}
    evaluation = evaluate(Says(answers), Fixed(problems(2)), k=3, rng=RNG)
    with Run.create(tmp_path / "run", recipe={}) as run:
        run.evaluation("test", 4, evaluation.columns(4))
    back = Evaluation.from_columns(read_evaluations(tmp_path / "run", "test").to_pydict())
    assert back.responses == evaluation.responses
    assert back.metrics == evaluation.metrics


def test_one_table_is_one_evaluation():
    columns = right_on({0}, 2).columns()
    with pytest.raises(InputError, match="evaluations of steps 0, 4; choose the rows of one step"):
        Evaluation.from_columns({**columns, "step": [0, 4]})
    del columns["greedy"]
    with pytest.raises(InputError, match="has no column 'greedy'"):
        Evaluation.from_columns(columns)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k = 0 samples per problem; give at least 1"),
        ({"n": 0}, "n = 0, but split 'test' of task 'fixed' has 2 problems"),
        ({"n": 3}, "n = 3, but split 'test' of task 'fixed' has 2 problems; give 1 to 2"),
        ({"split": "dev"}, "split 'dev' of task 'fixed' has no problems"),
    ],
)
def test_evaluate_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        evaluate(Says({"p0": ["0"], "p1": ["1"]}), Fixed(problems(2)), rng=RNG, **settings)


def test_an_id_may_not_stand_twice():
    with pytest.raises(InputError, match="uses a problem id twice"):
        evaluate(Says({"p0": ["0"]}), Fixed(problems(1) * 2), rng=RNG)


def right_on(ids, n=20):
    policy = Says({f"p{i}": [str(i) if i in ids else "?"] for i in range(n)})
    return evaluate(policy, Fixed(problems(n)), rng=RNG)


def test_compare_by_hand():
    """20 items: 0-9 right only before, 10-11 only after, 12-15 both, 16-19 neither."""
    before, after = right_on({*range(10), *range(12, 16)}), right_on(set(range(10, 16)))
    found = compare(before, after)
    assert (found.b, found.c, found.n, found.unknown) == (10, 2, 20, 0)
    assert found.p == pytest.approx(158 / 4096)
    assert (found.before, found.after) == (0.7, 0.3)
    assert found.difference.mean == pytest.approx(-0.4)
    # squares about the mean: 10 * .36 + 2 * 1.96 + 8 * .16 = 8.8; error sqrt(8.8 / 19 / 20)
    assert found.difference.error == pytest.approx(math.sqrt(8.8 / 380))
    assert "2 now right, 10 now wrong, McNemar p = 0.039" in str(found)


def test_compare_leaves_unknown_items_out_on_both_sides():
    before, after = right_on({0, 1, 2}, n=4), right_on({0, 3}, n=4)
    gone = tuple(replace(r, outcome=None) if r.problem == "p1" else r for r in after.responses)
    found = compare(before, Evaluation(responses=gone))
    assert (found.b, found.c, found.n, found.unknown) == (1, 1, 3, 1)
    assert "1 problems left out" in str(found)


def test_compare_refuses_other_items():
    with pytest.raises(InputError, match=r"2 problems, such as 'p18', are only in the first evaluation"):
        compare(right_on(set(), 20), right_on(set(), 18))
    with pytest.raises(InputError, match=r"2 problems, such as 'p18', are only in the second evaluation"):
        compare(right_on(set(), 18), right_on(set(), 20))


def test_compare_refuses_the_same_id_with_another_question():
    one = right_on({0}, 2)
    for changed in ({"prompt": "other?"}, {"answer": "7"}):
        other = Evaluation(responses=tuple(replace(r, **changed) for r in one.responses))
        with pytest.raises(InputError, match="problem 'p0' has another prompt or reference answer"):
            compare(one, other)


def test_compare_wants_one_answer_each():
    answers = {"p0": ["0", "0"]}
    twice = evaluate(Says(answers), Fixed(problems(1)), k=2, greedy=False, rng=RNG)
    with pytest.raises(InputError, match="problem 'p0' has 2 answers that count"):
        compare(twice, twice)


def test_compare_shares_by_hand():
    """Of two samples each: 0, 1/2, 1 and unknown before; 1, 1/2, 1/2 and 1 after. Differences 1, 0 and -1/2."""
    rows = [{"p0": "??", "p1": "1?", "p2": "22", "p3": "!!"}, {"p0": "00", "p1": "?1", "p2": "2?", "p3": "33"}]
    before, after = (
        evaluate(Says({id_: list(texts) for id_, texts in row.items()}), Fixed(problems(4)), k=2, greedy=False, rng=RNG)
        for row in rows
    )
    found = compare_shares(before, after)
    assert (found.mean, found.n) == (pytest.approx(1 / 6), 3)
    assert found.error == pytest.approx(math.sqrt((25 + 1 + 16) / 36 / 2 / 3))  # squares about 1/6, in 36ths
    assert (found.low, found.high) == (-1, 1)  # t with two degrees, 4.30, times 0.44: cut, for shares differ by 1
    with pytest.raises(InputError, match="such as 'p2', are only in the first evaluation"):
        compare_shares(before, right_on(set(), 2))


def test_compare_of_nothing_known():
    unknown = evaluate(Says({"p0": ["!"]}), Fixed(problems(1)), rng=RNG)
    with pytest.raises(InputError, match="no problem has a known verdict in both"):
        compare(unknown, unknown)
    with pytest.raises(InputError, match="no problem has a known verdict in both"):
        compare_shares(unknown, unknown)


def test_evaluate_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, reckon.evaluate; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@dataclass
class Lengths:
    """Two streams: tokens of a response ([N], NaN where the text is "?"), and 0.5 for every token ([N, T])."""

    def score(self, batch):
        lengths = batch.seq.mask.sum(dim=1).float()
        unread = torch.tensor([text == "?" for text in batch.rollouts.text])
        return {
            "length": Stream(values=torch.where(unread, torch.nan, lengths)),
            "dense": Stream(values=torch.full(batch.seq.mask.shape, 0.5)),
        }


def test_rewards_may_judge_beside_the_checker():
    policy = Says({"p0": ["0"], "p1": ["234"], "p2": ["?"]})
    found = evaluate(policy, Fixed(problems(3)), rng=RNG, reward=Lengths())
    assert [r.streams["length"] for r in found.responses] == [2, 4, None]  # an end token each
    assert [r.streams["dense"] for r in found.responses] == [1, 2, 1]  # half the tokens: 2, 4, 2
    assert found.metrics["stream/length"] == 3  # (2 + 4) / 2
    assert found.logged("test")["eval/test/stream/dense"] == pytest.approx(4 / 3)
    assert Evaluation.from_columns(found.columns(3)).metrics == found.metrics
    assert evaluate(policy, Fixed(problems(3)), rng=RNG).metrics["pass@1"] == found.metrics["pass@1"]
