"""Monte-Carlo labels of prefixes, against worlds whose values are known."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labeling_worlds import ChainPolicy, PitPolicy, PitTask, chain, rollouts_of

from reckon.annotate import (
    Budget,
    Cost,
    Drawing,
    label_prefixes,
    predict_rollouts,
    read_labels,
    rollouts_needed,
)
from reckon.errors import InputError, MissingError, RunError
from reckon.models import LanguageModel, Lora, Sampling, tiny
from reckon.steps import Pattern
from reckon.types import End, Problem, Rng, Verdict

COMMA, LINE = Pattern(r","), Pattern()


def seeds(policy, task, problems=2, n_cov=2, seed=0):
    return policy.sample(task.problems("train")[:problems], n_cov, Rng((seed, "seeds")))


def test_records_of_two_seeds_by_hand():
    """Two problems of three additions, one seed each: prefixes "", "a,", "a,b,", "a,b,c" + end, four a seed.

    The last one has ended: it is checked, not drawn. So 2 seeds + 2 * 3 prefixes * 5 completions = 32 rollouts. A
    completion has 6 tokens in all (a , b , c end), so of 6, 4 and 2 tokens: 2 * 6 + 2 * 5 * (6 + 4 + 2) = 132 tokens.
    """
    policy, task = ChainPolicy(), chain()
    rollouts = seeds(policy, task, n_cov=1)
    policy.calls.clear()
    labels = label_prefixes(policy, task, rollouts, COMMA, 5, Rng((0, "mc")), drawing=Drawing(policy_id="base"))
    assert policy.calls == [(6, 5)]  # many prefixes, one call
    assert labels.cost == Cost(rollouts=32, tokens=132, checks=32)
    assert [(r.trace, r.step, r.steps) for r in labels] == [(t, h, 3) for t in (0, 1) for h in range(4)]
    first = labels.records[2]
    text = rollouts.text[0]
    assert first.problem is rollouts.problems[0]
    assert first.prefix == (text[:2], text[2:4])
    assert first.text == text[:4]
    assert first.tokens == tuple(map(ord, text[:4]))
    assert (first.n_drawn, first.n_mc, first.generated, first.policy_id) == (5, 5, 10, "base")
    assert first.q_hat == first.n_correct / 5
    for trace in (0, 1):
        last = labels.records[4 * trace + 3]
        right = int(task.check(last.problem, rollouts.text[trace]).outcome)
        assert last.tokens == tuple(map(ord, rollouts.text[trace]))  # its end token is no part of a prefix
        assert (last.n_drawn, last.n_mc, last.n_correct, last.outcome) == (0, 5, 5 * right, right)


def test_estimates_are_unbiased_with_the_variance_of_a_share():
    """Over 400 draws of 6 completions the mean of q-hat is q, and its variance q (1 - q) / 6, within four errors."""
    policy, task, n = ChainPolicy(error=0.3), chain(), 6
    rollouts = seeds(policy, task, problems=1, n_cov=1)
    runs = [label_prefixes(policy, task, rollouts, COMMA, n, Rng((i, "mc"))) for i in range(400)]
    for step in range(3):
        record = runs[0].records[step]
        q = policy.value(record.problem, record.text)
        drawn = np.array([run.records[step].q_hat for run in runs])
        assert abs(drawn.mean() - q) < 4 * math.sqrt(q * (1 - q) / n / 400)
        spread = q * (1 - q) / n
        # A variance of 400 draws has a relative error of sqrt(2 / 399) = 0.07 at most for so flat a distribution.
        assert abs(drawn.var(ddof=1) / spread - 1) < 4 * 0.08


def test_advantages_have_the_variances_of_both_ends():
    policy, task, n = ChainPolicy(error=0.3), chain(), 4
    rollouts = seeds(policy, task, problems=1, n_cov=1)
    values = torch.cat(
        [label_prefixes(policy, task, rollouts, COMMA, n, Rng((i, "mc"))).values().q for i in range(500)]
    ).double()
    record = label_prefixes(policy, task, rollouts, COMMA, 1, Rng((0,))).records
    q = [policy.value(r.problem, r.text) for r in record[:2]]
    exact = sum(p * (1 - p) / n for p in q)
    assert abs((values[:, 1] - values[:, 0]).var().item() / exact - 1) < 0.3


def test_with_enough_completions_the_labels_are_the_values():
    policy, task = PitPolicy(), PitTask()
    labels = label_prefixes(policy, task, seeds(policy, task), LINE, 400, Rng((1,)))
    for record in labels:
        q = policy.value(record.text)
        assert record.q_hat == pytest.approx(q, abs=4 * math.sqrt(q * (1 - q) / 400) + 1e-9)


@pytest.mark.parametrize("ended", ["check", "draw"])
@pytest.mark.parametrize("share", [False, True])
def test_what_is_predicted_is_spent(ended, share):
    policy, task = ChainPolicy(), chain()
    rollouts = seeds(policy, task, problems=5, n_cov=4)
    drawing = Drawing(ended=ended, share=share, problems_per_chunk=2)
    labels = label_prefixes(policy, task, rollouts, COMMA, 3, Rng((0,)), drawing=drawing)
    assert labels.cost.rollouts == rollouts_needed(rollouts, COMMA, 3, drawing)
    assert labels.cost.checks == labels.cost.rollouts
    assert len(labels) == 20 * 4
    if not share:
        # 20 seeds of 3 steps: 20 * (1 + 4 * 3) = 260 as in the paper, 60 less if whole ones are only checked.
        assert predict_rollouts([3] * 20, 3) == 260
        assert labels.cost.rollouts == predict_rollouts([3] * 20, 3, ended=20 if ended == "check" else 0)
    else:
        assert labels.cost.rollouts < 200  # the empty prefix alone saves 5 * 3 * 3
        assert sum(r.n_drawn for r in labels) + 20 == labels.cost.rollouts


def test_shared_prefixes_have_equal_counts_and_are_paid_once():
    policy, task = ChainPolicy(), chain()
    rollouts = seeds(policy, task, problems=1, n_cov=3)
    labels = label_prefixes(policy, task, rollouts, COMMA, 4, Rng((0,)), drawing=Drawing(share=True))
    empty = [r for r in labels if r.step == 0]
    assert len({r.n_correct for r in empty}) == 1
    assert [r.n_drawn for r in empty] == [4, 0, 0]
    apart = label_prefixes(policy, task, rollouts, COMMA, 4, Rng((0,)))
    assert [r.n_drawn for r in apart if r.step == 0] == [4, 4, 4]


def test_a_whole_response_that_is_drawn_goes_on_before_its_end_token():
    policy, task = ChainPolicy(), chain()
    rollouts = seeds(policy, task, problems=1, n_cov=1)
    labels = label_prefixes(policy, task, rollouts, COMMA, 2, Rng((0,)), drawing=Drawing(ended="draw"))
    last = labels.records[-1]
    assert (last.n_drawn, last.generated) == (2, 2)  # nothing but the end token is left to say
    assert last.q_hat == last.outcome


class Silent:
    """Judges nothing that ends in an even digit."""

    name = "silent"

    def problems(self, split):
        return chain().problems(split)

    def check(self, problem, text):
        if int(text[-1]) % 2 == 0:
            return Verdict(outcome=None, answer=text[-1], reason="timed out")
        return chain().check(problem, text)


def test_unknown_verdicts_leave_count_and_mean():
    policy, task = ChainPolicy(), chain()
    rollouts = seeds(policy, task, problems=6, n_cov=1)
    whole = label_prefixes(policy, task, rollouts, COMMA, 8, Rng((0,)))
    partly = label_prefixes(policy, Silent(), rollouts, COMMA, 8, Rng((0,)))
    assert whole.cost == partly.cost
    for one, other in zip(whole, partly, strict=True):
        if one.n_drawn:
            odd = int(one.problem.answer) % 2 == 1  # the right answers are all known, or all unknown
            assert other.n_correct == (one.n_correct if odd else 0)
            assert other.n_mc <= 8
        else:
            known = int(rollouts.text[one.trace][-1]) % 2 == 1
            assert (other.n_mc, other.outcome) == ((8, one.outcome) if known else (0, None))
    assert {record.n_mc for record in partly} - {0, 8}
    nothing = next(record for record in partly if record.n_mc == 0)
    assert math.isnan(nothing.q_hat)


class Partial(PitTask):
    """Half the credit for whatever is not right."""

    def check(self, problem, text):
        found = super().check(problem, text)
        return found if found.outcome else Verdict(outcome=0.5, answer=found.answer, reason="partial")


def test_partial_credit_is_not_right():
    policy, task = PitPolicy(error=0.3), PitTask()
    rollouts = seeds(policy, task)
    whole = label_prefixes(policy, task, rollouts, LINE, 4, Rng((0,)))
    assert label_prefixes(policy, Partial(), rollouts, LINE, 4, Rng((0,))) == whole


def test_no_two_chunks_draw_the_same_numbers():
    names = []

    class Named(PitPolicy):
        def sample(self, problems, k, rng, prefixes=None):
            names.append(rng)
            return super().sample(problems, k, rng, prefixes)

    policy, task = Named(), PitTask()
    label_prefixes(policy, task, seeds(policy, task, 4), LINE, 2, Rng((0,)), drawing=Drawing(problems_per_chunk=1))
    assert len(names) == len(set(names)) == 5


def test_a_response_that_was_cut_is_wrong_unless_its_text_is_to_be_checked():
    problem = Problem(id="p", prompt="1+2=", answer="3")
    cut = rollouts_of([problem], 1, [["3"]], [End.LENGTH], [0])
    task = chain(operations=1)
    wrong = label_prefixes(ChainPolicy(), task, cut, COMMA, 2, Rng((0,)))
    checked = label_prefixes(ChainPolicy(), task, cut, COMMA, 2, Rng((0,)), drawing=Drawing(cut="checked"))
    assert [wrong.records[1].q_hat, checked.records[1].q_hat] == [0.0, 1.0]
    unknown = rollouts_of([Problem(id="p", prompt="1+2=")], 1, [["3"]], [End.LENGTH], [0])
    assert label_prefixes(ChainPolicy(), task, unknown, COMMA, 2, Rng((0,))).records[1].outcome is None


def test_an_empty_response_has_the_empty_prefix_alone():
    problem = Problem(id="p", prompt="1+2=", answer="3")
    empty = rollouts_of([problem], 1, [[""]], [End.EOS], [0])
    labels = label_prefixes(ChainPolicy(error=0.0), chain(operations=1), empty, COMMA, 3, Rng((0,)))
    (record,) = labels
    assert (record.step, record.steps, record.tokens, record.q_hat, record.outcome) == (0, 0, (), 1.0, 0)
    assert labels.cost.rollouts == 4


class Limited(PitPolicy):
    """Takes limits, as a language model does, and keeps them."""

    def sample(self, problems, k, rng, prefixes=None, limits=None):
        full = super().sample(problems, k, rng, prefixes)
        self.limits = limits
        if limits is None:
            return full
        prefixes = prefixes or [()] * len(problems)
        given = [len(prefix) for prefix in prefixes for _ in range(k)]
        rows = [list(p)[: g + limit] for p, g, limit in zip(full.pieces, given, limits, strict=True)]
        ends = [End.EOS if row and row[-1] == "" else End.LENGTH for row in rows]
        return rollouts_of(problems, k, rows, ends, given)


def test_completions_are_cut_where_the_whole_response_would_be():
    policy, task = Limited(error=0.0, steps=3), PitTask(steps=3)
    rollouts = seeds(policy, task, problems=1, n_cov=1)  # g \n g \n g \n end: 7 tokens
    roomy = label_prefixes(policy, task, rollouts, LINE, 2, Rng((0,)), drawing=Drawing(most_tokens=7))
    assert [r.q_hat for r in roomy] == [1.0, 1.0, 1.0, 1.0]
    assert policy.limits == [7, 7, 5, 5, 3, 3]
    tight = label_prefixes(policy, task, rollouts, LINE, 2, Rng((0,)), drawing=Drawing(most_tokens=6))
    assert [r.q_hat for r in tight] == [0.0, 0.0, 0.0, 1.0]  # cut before the end token: wrong; the seed itself had room


class Short(PitPolicy):
    """Has a limit of four tokens that nobody can set, prefix included."""

    def sample(self, problems, k, rng, prefixes=None):
        full = super().sample(problems, k, rng, prefixes)
        given = [len(prefix) for prefix in prefixes for _ in range(k)]
        rows = [list(pieces)[: max(4, begun)] for pieces, begun in zip(full.pieces, given, strict=True)]
        return rollouts_of(problems, k, rows, [End.LENGTH] * len(rows), given)


def test_behind_a_prefix_at_the_policys_limit_nothing_is_generated():
    r"""A seed of 7 tokens, g \n g \n g \n end: of its prefixes of 0, 2 and 4 tokens two completions to 4 each."""
    task = PitTask(steps=3)
    rollouts = seeds(PitPolicy(error=0.0, steps=3), task, problems=1, n_cov=1)
    labels = label_prefixes(Short(error=0.0, steps=3), task, rollouts, LINE, 2, Rng((0,)))
    assert [record.generated for record in labels] == [8, 4, 0, 0]
    assert [record.q_hat for record in labels] == [0.0, 0.0, 0.0, 1.0]
    assert labels.cost.tokens == 7 + 8 + 4


@pytest.mark.parametrize("most", [3, 4])
def test_seeds_longer_than_a_completion_may_be_are_refused_before_anything_is_drawn(most):
    policy, task = Limited(error=0.0, steps=3), PitTask(steps=3)
    rollouts = seeds(policy, task, problems=1, n_cov=1)
    policy.calls.clear()
    with pytest.raises(InputError, match=rf"has a prefix of 4 tokens and `most_tokens` is {most}: nothing can follow"):
        label_prefixes(policy, task, rollouts, LINE, 2, Rng((0,)), drawing=Drawing(most_tokens=most))
    assert not policy.calls


@given(limit=st.integers(4, 200), n_mc=st.integers(1, 4), chunk=st.integers(1, 3), share=st.booleans())
@settings(max_examples=30)
def test_a_budget_is_never_exceeded_and_well_used(limit, n_mc, chunk, share):
    policy, task = PitPolicy(error=0.3, steps=3), PitTask(steps=3)
    rollouts = seeds(policy, task, problems=4, n_cov=1)
    drawing = Drawing(problems_per_chunk=chunk, share=share)
    labels = label_prefixes(
        policy, task, rollouts, LINE, n_mc, Rng((0,)), budget=Budget(rollouts=limit), drawing=drawing
    )
    assert labels.cost.rollouts <= limit
    labeled = {record.trace for record in labels}
    assert len(labeled) + labels.left_out == 4
    if labels.left_out:
        assert labels.cost.rollouts + 3 * n_mc > limit  # one seed more would not have fitted


def test_a_budget_of_tokens_counts_on_the_longest_completion():
    policy, task = Limited(error=0.1, steps=3), PitTask(steps=3)
    rollouts = seeds(policy, task, problems=4, n_cov=1)
    drawing = Drawing(most_tokens=7, problems_per_chunk=1)
    labels = label_prefixes(policy, task, rollouts, LINE, 2, Rng((0,)), drawing=drawing, budget=Budget(tokens=120))
    # Seeds 4 * 7 = 28. Each takes 2 * (7 + 5 + 3) = 30 and must have room for 6 * 7 = 42: 28, 58, 88 > 120 - 42.
    assert (labels.cost.tokens, labels.left_out) == (88, 2)
    with pytest.raises(InputError, match="a budget of tokens needs `most_tokens`"):
        label_prefixes(policy, task, rollouts, LINE, 2, Rng((0,)), budget=Budget(tokens=120))


def test_the_same_name_gives_the_same_labels_and_another_name_others():
    policy, task = ChainPolicy(), chain()
    rollouts = seeds(policy, task, problems=4)
    one = label_prefixes(policy, task, rollouts, COMMA, 4, Rng((0, "mc")))
    assert one == label_prefixes(policy, task, rollouts, COMMA, 4, Rng((0, "mc")))
    assert one != label_prefixes(policy, task, rollouts, COMMA, 4, Rng((1, "mc")))


class Interrupted(Exception):
    pass


class Mortal(ChainPolicy):
    """Dies at a call."""

    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def sample(self, problems, k, rng, prefixes=None):
        if self.left == 0:
            raise Interrupted
        self.left -= 1
        return super().sample(problems, k, rng, prefixes)


@pytest.mark.parametrize("died", [0, 1, 2])
def test_resumed_equals_uninterrupted_and_makes_nothing_twice(tmp_path, died):
    task = chain()
    rollouts = seeds(ChainPolicy(), task, problems=5)
    how = {"drawing": Drawing(problems_per_chunk=2), "budget": Budget(rollouts=118)}
    straight = label_prefixes(ChainPolicy(), task, rollouts, COMMA, 4, Rng((0,)), **how)
    assert straight.left_out  # the budget matters, and must be charged for what was made before
    with pytest.raises(Interrupted):
        label_prefixes(Mortal(died), task, rollouts, COMMA, 4, Rng((0,)), folder=tmp_path, **how)
    assert len(list(tmp_path.glob("labels-*.parquet"))) == died
    again = ChainPolicy()
    told = []
    labels = label_prefixes(
        again, task, rollouts, COMMA, 4, Rng((0,)), folder=tmp_path, tell=lambda n, text: told.append((n, text)), **how
    )
    assert len(again.calls) <= 3 - died
    assert labels.cost == straight.cost
    assert [vars(r) | {"problem": r.problem.id} for r in labels] == [
        vars(r) | {"problem": r.problem.id} for r in straight
    ]
    assert told == [(2.0, told[0][1]), (4.0, told[1][1]), (5.0, f"{straight.cost.rollouts} rollouts")]
    third = ChainPolicy()
    assert label_prefixes(third, task, rollouts, COMMA, 4, Rng((0,)), folder=tmp_path, **how).cost == straight.cost
    assert third.calls == []
    read = read_labels(tmp_path)
    assert (read.records, read.cost, read.left_out) == (labels.records, straight.cost, straight.left_out)


def test_another_plan_in_the_same_folder_is_refused(tmp_path):
    policy, task = ChainPolicy(), chain()
    rollouts = seeds(policy, task)
    label_prefixes(policy, task, rollouts, COMMA, 2, Rng((0,)), folder=tmp_path)
    with pytest.raises(InputError, match=r"made with another `n_mc` \(2, now 3\). Ask for the same"):
        label_prefixes(policy, task, rollouts, COMMA, 3, Rng((0,)), folder=tmp_path)
    with pytest.raises(InputError, match="made with another `steps`"):
        label_prefixes(policy, task, rollouts, LINE, 2, Rng((0,)), folder=tmp_path)
    for more, says in (
        ({"problems": 3}, r"made with another `problems` \(\"2, \w{16}\", now \"3, \w{16}\"\)\. Ask for the same"),
        ({"n_cov": 3}, r"made with another `seeds` \(\"4, \w{16}\", now \"6, \w{16}\"\)\. Ask for the same"),
    ):
        with pytest.raises(InputError, match=says):
            label_prefixes(policy, task, seeds(policy, task, **more), COMMA, 2, Rng((0,)), folder=tmp_path)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(InputError, match=r"no plan\.json"):
        label_prefixes(policy, task, rollouts, COMMA, 2, Rng((0,)), folder=tmp_path)


class Marked:
    """A checker that nothing can be told of but its verdicts: `outcome`, whatever the text."""

    name = "marked"

    def __init__(self, outcome):
        self.outcome = outcome

    def check(self, problem, text):
        return Verdict(outcome=self.outcome, answer=text, reason="")


@dataclass
class Strict(PitTask):
    """Says of these seeds what its superclass does, by settings that may say otherwise of others."""

    least: int = 0
    units: frozenset[str] = frozenset({"m", "s", "kg"})
    reader: object = field(default_factory=object)  # another one, at another address, in every process


def test_another_checker_in_the_same_folder_is_refused(tmp_path):
    """By its verdicts, and by its settings where the verdicts on the seeds are the same."""
    policy = ChainPolicy()
    rollouts = seeds(policy, chain())
    label_prefixes(policy, Marked(0.0), rollouts, COMMA, 2, Rng((0,)), folder=tmp_path / "chain")
    for other in (Marked(1.0), Marked(None), chain()):
        with pytest.raises(InputError, match="holds labels made with another `task`"):
            label_prefixes(policy, other, rollouts, COMMA, 2, Rng((0,)), folder=tmp_path / "chain")
    pits, strict = PitPolicy(), Strict()
    rollouts = seeds(pits, strict)
    label_prefixes(pits, strict, rollouts, LINE, 2, Rng((0,)), folder=tmp_path / "pits")
    label_prefixes(pits, Strict(), rollouts, LINE, 2, Rng((0,)), folder=tmp_path / "pits")
    with pytest.raises(InputError, match="holds labels made with another `task`"):
        label_prefixes(pits, Strict(least=1), rollouts, LINE, 2, Rng((0,)), folder=tmp_path / "pits")


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_another_model_in_the_same_folder_is_refused(tmp_path, lora):
    """Even one with the same adapters; the same one opened again is not another."""

    def model(seed=0, limit=4):
        network = tiny.make_network(layers=1, width=16, heads=2, seed=seed)
        sampling = Sampling(max_new_tokens=limit)
        return LanguageModel(network, tiny.make_tokenizer(), sampling=sampling, lora=lora, device="cpu")

    task = chain()
    rollouts = model().sample(task.problems("train")[:1], 1, Rng((0, "seeds")))
    ask = lambda policy: label_prefixes(policy, task, rollouts, COMMA, 2, Rng((0,)), folder=tmp_path)  # noqa: E731
    assert ask(model()).records == ask(model()).records
    for other in (model(seed=1), model(limit=5)):
        with pytest.raises(InputError, match="holds labels made with another `policy`"):
            ask(other)


def test_damaged_files_are_named(tmp_path):
    policy, task = ChainPolicy(), chain()
    rollouts = seeds(policy, task)
    label_prefixes(policy, task, rollouts, COMMA, 2, Rng((0,)), folder=tmp_path)
    (tmp_path / "labels-00000.parquet").write_bytes(b"no table")
    with pytest.raises(RunError, match=r"labels-00000\.parquet cannot be read"):
        read_labels(tmp_path)
    with pytest.raises(MissingError, match="holds no labels"):
        read_labels(tmp_path / "nowhere")


def test_bad_input_is_told_in_a_sentence():
    policy, task = ChainPolicy(), chain()
    rollouts = seeds(policy, task)
    with pytest.raises(InputError, match="`n_mc` is 0; it must be at least 1"):
        label_prefixes(policy, task, rollouts, COMMA, 0, Rng((0,)))
    with pytest.raises(InputError, match="the seeds alone cost 4 rollouts"):
        label_prefixes(policy, task, rollouts, COMMA, 1, Rng((0,)), budget=Budget(rollouts=3))
    with pytest.raises(InputError, match="the budget's `tokens` is -1"):
        Budget(tokens=-1)
    with pytest.raises(InputError, match="`ended` is 'never'; it must be check or draw"):
        Drawing(ended="never")
    with pytest.raises(InputError, match="`problems_per_chunk` is 0"):
        Drawing(problems_per_chunk=0)
    with pytest.raises(InputError, match="takes no `limits`"):
        label_prefixes(policy, task, rollouts, COMMA, 1, Rng((0,)), drawing=Drawing(most_tokens=9))
    with pytest.raises(InputError, match="seed 0: the splitter gave"):
        label_prefixes(policy, task, rollouts, lambda text: [99], 1, Rng((0,)))
