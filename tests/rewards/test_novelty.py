"""Bonuses for what is new: counts by hand, memory that resumes, hidden states, and how they reach the policy."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from judge_models import NAN, answered, language_model

from reckon.credit import GroupNormalized
from reckon.errors import InputError, RunError
from reckon.methods import grpo, novelty
from reckon.models.table import Action, TablePolicy
from reckon.rewards import (
    Elliptical,
    EpisodicCount,
    GlobalCount,
    Linear,
    Novelty,
    Sum,
    Verifier,
    as_reward,
    is_group_level,
)
from reckon.runs import Run
from reckon.train import Plan, train
from reckon.types import LearningReward, Outputs, Problem, Reporting, Rng, Stream, Verdict

RNG = Rng((0, "reward"))
SQRT3 = math.sqrt(3)


def verdict(answer, outcome=0.0):
    """What a checker finds: "?" stands for one that crashed, None for a response without an answer."""
    if answer == "?":
        return Verdict(outcome=None, answer=None, reason="crashed")
    if answer is None:
        return Verdict(outcome=0.0, answer=None, reason="no answer")
    return Verdict(outcome=outcome, answer=answer, reason="right" if outcome else "wrong")


@pytest.fixture
def answers(make_batch):
    """answers(["4", "5"], group=..., ids=...) -> a batch of responses in which a checker has read these."""

    def made(given, group=None, outcomes=None, ids=None):
        group = [0] * len(given) if group is None else group
        outcomes = [0.0] * len(given) if outcomes is None else outcomes
        ids = [f"p{g}" for g in range(max(group) + 1)] if ids is None else ids
        problems = [Problem(id=name, prompt=name, answer="0") for name in ids]
        batch = make_batch([f"it is {a}" for a in given], group=group, outcomes=outcomes, problems=problems)
        return replace(batch, verdicts=tuple(map(verdict, given, outcomes)))

    return made


def last(text):
    return text[-1]


def read(streams, name=None):
    stream = streams[name] if name else next(iter(streams.values()))
    return stream.values


def same(found, wanted):
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float32), rtol=1e-5, atol=1e-6, equal_nan=True)


# In the group


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("inverse", [1 / 3, 1, 1 / 3, 0, 1 / 3, NAN, 1, 1 / 2, 1 / 2]),
        ("sqrt", [1 / SQRT3, 1, 1 / SQRT3, 0, 1 / SQRT3, NAN, 1, math.sqrt(1 / 2), math.sqrt(1 / 2)]),
        ("first", [1, 1, 0, 0, 0, NAN, 1, 1, 0]),
    ],
)
def test_an_answer_is_worth_less_the_more_siblings_give_it(answers, how, wanted):
    """4, 5, 4, nothing, 4, a crash; and to another prompt 4, 7, 7. No answer is no finding; a crash is unknown."""
    batch = answers(["4", "5", "4", None, "4", "?", "4", "7", "7"], [0] * 6 + [1] * 3)
    part = EpisodicCount(how=how)
    same(read(part.score(batch)), wanted)
    assert part.score(batch)["episodic_count"].kind == "reward"
    assert is_group_level(part)


def test_a_label_says_what_is_counted(answers):
    batch = answers(["4", "5", "14", "?"])
    # Blank is no label. The text is there whatever became of the checker.
    part = EpisodicCount(label=lambda text: text[-1] if text[-1].isdigit() else " ")
    same(read(part.score(batch)), [1 / 2, 1, 1 / 2, 0])


def test_the_mean_times_the_group_is_the_number_of_answers(answers):
    batch = answers(["1", "2", "1", "3", "1", "2"])
    assert 6 * read(EpisodicCount().score(batch)).mean().item() == pytest.approx(3)


# In the run


def test_an_answer_is_worth_less_the_more_often_its_problem_was_given_it(answers):
    part = GlobalCount()
    assert isinstance(part, LearningReward)
    assert isinstance(part, Reporting)
    first = answers(["A", "B", "A", None, "A"], [0, 0, 0, 0, 1])
    same(read(part.score(first)), [1 / math.sqrt(2), 1, 1 / math.sqrt(2), 0, 1])
    same(read(part.assess(first, RNG)), [1 / math.sqrt(2), 1, 1 / math.sqrt(2), 0, 1])
    assert part.metrics() == {"known": 3, "new": 1}
    # p0 has been given A twice and B once, p1 A once; a problem drawn twice is one problem
    second = answers(["A", "C", "?", "A", "A"], [0, 0, 0, 1, 2], ids=["p0", "p1", "p0"])
    same(read(part.assess(second, RNG)), [1 / 2, 1, NAN, 1 / math.sqrt(2), 1 / 2])
    assert part.metrics() == {"known": 4, "new": pytest.approx(1 / 3)}  # of A and C to p0, A to p1
    same(read(part.score(answers(["A", "B", "C"]))), [1 / math.sqrt(5), 1 / math.sqrt(2), 1 / math.sqrt(2)])


def test_scoring_is_not_remembered(answers):
    part, batch = GlobalCount(), answers(["A", "B"])
    for _ in range(3):
        same(read(part.score(batch)), [1, 1])
    assert part.state_dict() == {"counts": {}}
    assert part.metrics() == {}


def test_labels_that_mean_the_same_everywhere_are_counted_over_the_run(answers):
    batch = answers(["4", "4", "5"], [0, 1, 1])
    same(read(GlobalCount(label=last).score(batch)), [1, 1, 1])
    same(read(GlobalCount(label=last, per="run").score(batch)), [1 / math.sqrt(2), 1 / math.sqrt(2), 1])


def test_counts_are_saved_whatever_the_answers_are_called(answers, tmp_path):
    odd = ["$tensor", "", "é\u0085", "1" * 50, "a/b"]
    one, two = GlobalCount(), GlobalCount()
    one.assess(answers(odd, ids=["$int"]), RNG)
    with Run.create(tmp_path / "run", recipe={"by": "hand"}) as run:
        run.save(1, {"reward": one})
        run.load({"reward": two}, 1)
    assert two.state_dict() == one.state_dict() == {"counts": {"$int": dict.fromkeys(odd, 1)}}
    again = answers(["$tensor", "x"], ids=["$int"])
    assert torch.equal(read(one.assess(again, RNG)), read(two.assess(again, RNG)))
    assert two.state_dict() == one.state_dict()
    with pytest.raises(InputError, match="global_count: the saved state must hold counts"):
        two.load_state_dict({"counts": {"p": 3}})


def test_whoever_cannot_say_what_an_answer_is_says_so(answers, make_batch):
    for part in (EpisodicCount(), GlobalCount()):
        with pytest.raises(RunError, match=r"nothing says what the responses answer.* Give a `label`"):
            part.score(make_batch(["a", "b"]))
        silent = replace(answers(["4"]), verdicts=(Verdict(outcome=1.0, answer=None, reason="right"),))
        with pytest.raises(RunError, match="nothing says what the responses answer"):
            part.score(silent)
    with pytest.raises(RunError, match=r"episodic_count: its `label` returned 7 \(int\) for row 1"):
        EpisodicCount(label=lambda text: 7 if "5" in text else text).score(answers(["4", "5"]))


# Hidden states


def hidden_batch(make_batch, rows, group=None):
    """Responses of two tokens whose hidden states have these means; what stands in the padding is not a number."""
    batch = make_batch(["ab"] * len(rows), lengths=[2] * len(rows), group=group)
    table = torch.full((len(rows), 3, 3), torch.nan)
    for i, row in enumerate(rows):
        table[i, 0], table[i, 1] = torch.tensor(row) + 1.5, torch.tensor(row) - 0.5  # mean: row + 1/2
    tokens = torch.arange(len(rows))[:, None].expand(batch.seq.mask.shape).contiguous()
    batch = replace(batch, rollouts=replace(batch.rollouts, seq=replace(batch.seq, tokens=tokens)))
    return batch, Hidden(table)


class Hidden:
    """A model whose hidden states are told by a response's first token."""

    def __init__(self, table):
        self.table, self.asked = table, []

    def outputs(self, seq, want=("logprobs",)):
        self.asked.append((len(seq.tokens), tuple(want)))
        return Outputs(hidden=self.table[seq.tokens[:, 0], : seq.mask.shape[1]])


# Layer-normalized to length 1 these stand at a right angle: u = (1, -1, 0) / sqrt 2 and v = (1, 1, -2) / sqrt 6.
U, V = [3.0, -3.0, 0.0], [0.5, 0.5, -1.0]


def test_a_direction_nobody_else_took_is_paid_in_full(make_batch):
    """u twice and v: 0.1 / (1 + 0.1) for those with a sibling, 1 for the other; another prompt does not matter."""
    batch, model = hidden_batch(make_batch, [U, U, V, U], [0, 0, 0, 1])
    part = Elliptical(model, ridge=0.1, center=False)
    same(read(part.score(batch)), [1 / 11, 1 / 11, 1, 1])
    assert model.asked == [(3, ("hidden",)), (1, ("hidden",))]  # one group at a time
    assert is_group_level(part)


def test_centered_what_all_have_in_common_does_not_count(make_batch):
    """Less (2u + v) / 3 they lie on a line, at -1, -1 and 2 times sqrt(2) / 3: squares 2/9, 2/9 and 8/9."""
    batch, model = hidden_batch(make_batch, [U, U, V])
    wanted = [(2 / 9) / (0.1 + 10 / 9) / 10, (2 / 9) / (0.1 + 10 / 9) / 10, (8 / 9) / (0.1 + 4 / 9) / 10]
    same(read(Elliptical(model).score(batch)), wanted)
    batch, model = hidden_batch(make_batch, [V, V, V])
    same(read(Elliptical(model).score(batch)), [0, 0, 0])


def test_nothing_sampled_is_unknown_and_no_sibling(make_batch):
    batch, model = hidden_batch(make_batch, [U, V, U])
    mask = batch.seq.mask.clone()
    mask[2] = False
    batch = replace(batch, rollouts=replace(batch.rollouts, seq=replace(batch.seq, mask=mask)))
    same(read(Elliptical(model, center=False).score(batch)), [1, 1, NAN])


def test_of_a_language_model_the_odd_one_out_is_the_newest():
    model = language_model()
    problems = [Problem(id="a", prompt="1+1=", answer="2")]
    batch = answered(model, problems, ["22222", "22222", "xyz", "22222"], group=[0] * 4)
    found = read(Elliptical(model).score(batch))
    assert found.argmax() == 2
    assert found[[0, 1]].tolist() == pytest.approx(found[[1, 3]].tolist(), rel=1e-4)
    whole = model.outputs(batch.seq, ("hidden",)).hidden.double()
    phi = torch.stack([row[mask].mean(dim=0) for row, mask in zip(whole, batch.seq.mask, strict=True)])
    phi = torch.nn.functional.layer_norm(phi, phi.shape[1:], eps=0) / phi.shape[1] ** 0.5
    phi = phi - phi.mean(dim=0)
    others = phi[[0, 1, 3]]
    direct = phi[2] @ torch.linalg.solve(0.1 * torch.eye(len(phi[2])).double() + others.T @ others, phi[2])
    assert found[2].item() == pytest.approx(0.1 * direct.item(), rel=1e-3)


def test_a_model_without_hidden_states_is_told(make_batch):
    batch = make_batch(["a", "b"])
    with pytest.raises(InputError, match="elliptical: its model gives no hidden states"):
        Elliptical(Silent()).score(batch)


class Silent:
    def outputs(self, seq, want=("logprobs",)):
        return Outputs()


# Combined, as an advantage


class Fixed:
    """A reward that says what it is told to."""

    def __init__(self, *values):
        self.values = torch.tensor(values)

    def score(self, batch):
        return {"fixed": Stream(values=self.values)}


def test_the_product_of_both_less_its_mean_in_the_group(answers):
    """4, 4, 4, 5: 1/3 times 1/sqrt(3), and 1 times 1."""
    part = Novelty({"group": EpisodicCount(), "run": GlobalCount()})
    streams = part.assess(answers(["4", "4", "4", "5"]), RNG)
    low = 1 / 3 / SQRT3
    mean = (3 * low + 1) / 4
    same(read(streams, "novelty"), [low - mean] * 3 + [1 - mean])
    assert (streams["novelty"].kind, streams["novelty"].train) == ("advantage", True)
    assert [(name, s.kind, s.train) for name, s in streams.items()][1:] == [
        ("group", "reward", False),
        ("run", "reward", False),
    ]
    again = part.assess(answers(["4", "4", "4", "5"]), RNG)
    low, high = 1 / 3 / math.sqrt(6), 1 / math.sqrt(2)
    mean = (3 * low + high) / 4
    same(read(again, "novelty"), [low - mean] * 3 + [high - mean])
    assert part.metrics() == {"run/known": 2, "run/new": 0}
    assert is_group_level(part)


def test_the_sum_has_weights_and_may_be_left_uncentered(answers):
    batch = answers(["4", "4", "5"])
    part = Novelty({"a": EpisodicCount(), "b": Fixed(3.0, 0.0, 1.0)}, how="sum", weights={"b": 0.5}, center=False)
    same(read(part.score(batch)), [2.0, 0.5, 1.5])
    assert not is_group_level(Novelty({"b": Fixed(1.0)}, center=False))


def test_what_one_part_does_not_know_is_paid_nothing_and_moves_no_mean(answers):
    part = Novelty({"a": EpisodicCount(), "b": Fixed(1.0, 3.0, 1.0)})
    batch = answers(["?", "5", "6"])
    same(read(part.score(batch)), [NAN, 1, -1])
    credit = GroupNormalized()(batch, {"x": Stream(values=torch.zeros(3)), **part.score(batch)})
    same(credit.advantages[:, 0], [0, 1, -1])


def test_in_deviations_so_far_the_first_batch_included(answers):
    """0, 2: deviation 1. Then 0, 2, 4, 4: mean 2.5, squares 11. Forgetting half: 1 and 1, joined by 4 and 4."""
    batch = answers(["4", "5"])
    bonus = Fixed(0.0, 2.0)
    part, forgets = (Novelty({"x": bonus}, center=False, normalize="std", decay=decay) for decay in (1.0, 0.5))
    same(read(part.score(batch)), [0, 2])  # nothing to measure by
    for each in (part, forgets):
        same(read(each.assess(batch, RNG)), [0, 2])
    bonus.values = torch.tensor([4.0, 4.0])
    same(read(part.assess(batch, RNG)), [4 / math.sqrt(11 / 4)] * 2)
    # 1 value at 1 with squares 1, then 2 at 4: 3 values, squares 1 + 9 * 2 / 3
    same(read(forgets.assess(batch, RNG)), [4 / math.sqrt(7 / 3)] * 2)
    fresh = Novelty({"x": bonus}, center=False, normalize="std")
    fresh.load_state_dict(part.state_dict())
    assert torch.equal(read(fresh.score(batch)), read(part.score(batch)))


def test_the_order_within_a_group_does_not_matter(answers):
    given, order = ["4", "5", "4", None, "6", "5"], [3, 5, 0, 4, 2, 1]
    found = read(novelty(TASK).reward.score(answers(given)), "bonus/novelty")
    turned = read(novelty(TASK).reward.score(answers([given[i] for i in order])), "bonus/novelty")
    torch.testing.assert_close(turned, found[order])


def test_where_all_fail_the_credit_is_the_bonus_and_nothing_is_divided_by_a_deviation(answers):
    batch = answers(["4", "4", "4", "5"])
    parts = novelty(TASK, alpha=0.1)
    streams = parts.reward.score(batch)
    low = 1 / 3 / SQRT3
    mean = (3 * low + 1) / 4
    credit = parts.advantage(batch, streams)
    same(credit.advantages[:, 0], [0.1 * (low - mean)] * 3 + [0.1 * (1 - mean)])
    assert (credit.advantages == 0)[~batch.seq.mask].all()
    # where one is right, GRPO's advantage and the bonus
    right = answers(["4", "4", "4", "5"], outcomes=[0.0, 0.0, 0.0, 1.0])
    both = parts.advantage(right, parts.reward.score(right)).advantages[:, 0]
    same(both, [-0.5 + 0.1 * (low - mean)] * 3 + [1.5 + 0.1 * (1 - mean)])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: EpisodicCount(how="log"), "episodic_count: `how` is 'log'"),
        (lambda: GlobalCount(per="group"), "global_count: `per` is 'group'"),
        (lambda: GlobalCount(per="run"), r"global_count: per='run' counts over all problems.* Give a `label`"),
        (lambda: Elliptical(Silent(), ridge=0.0), "elliptical: `ridge` is 0.0"),
        (lambda: Novelty({}), "novelty: there is no reward in it"),
        (lambda: Novelty({"novelty": EpisodicCount()}), "novelty: 'novelty' cannot name a part"),
        (lambda: Novelty({"a": EpisodicCount()}, how="mean"), "novelty: `how` is 'mean'; it must be product or sum"),
        (lambda: Novelty({"a": EpisodicCount()}, normalize="max"), "novelty: `normalize` is 'max'"),
        (lambda: Novelty({"a": EpisodicCount()}, weights={"a": 2.0}), "novelty: `weights` are those of a sum"),
        (lambda: Novelty({"a": EpisodicCount()}, how="sum", weights={"b": 2.0}), "`weights` names 'b'"),
        (lambda: Novelty({"a": EpisodicCount()}, how="sum", weights={"a": -1.0}), "the weight of 'a' is -1.0"),
        (lambda: Novelty({"a": EpisodicCount()}, normalize="std", decay=0.0), "novelty: `decay` is 0.0"),
        (lambda: Novelty({"a": EpisodicCount()}, decay=0.5), "novelty: `decay` is read by normalize='std' alone"),
    ],
)
def test_settings_that_cannot_be(made, message):
    with pytest.raises(InputError, match=message):
        made()


def test_what_is_no_bonus_is_refused_where_it_shows(answers):
    with pytest.raises(RunError, match=r"novelty: 'b' gave -2 for row 1, and a bonus is 0 or more"):
        Novelty({"a": EpisodicCount(), "b": Fixed(1.0, -2.0)}).score(answers(["4", "5"]))
    with pytest.raises(RunError, match=r"novelty: it compares responses to one prompt, and no prompt has two"):
        Novelty({"a": EpisodicCount()}).assess(answers(["4", "5"], [0, 1]), RNG)


def test_a_bonus_can_be_a_part_of_an_ordinary_reward(answers):
    """Then it is a reward, and is normalized with the others."""
    tree = as_reward(Linear({"right": Verifier(), "fresh": EpisodicCount()}, weights={"fresh": 0.5}))
    batch = answers(["4", "4", "5"], outcomes=[1.0, 1.0, 0.0])
    same(tree.score(batch)["linear/linear"].values, [1.25, 1.25, 0.5])


# Through the loop


class Guess:
    """Which of eight letters? Nobody is right unless it is said to be the last."""

    name = "guess"

    def __init__(self, right=None):
        self.right = right

    def problems(self, split):
        return [Problem(id=f"{i}", prompt=f"{i}", answer=self.right) for i in range(2)]

    def check(self, problem, text):
        right = text == problem.answer
        return Verdict(outcome=float(right), answer=text, reason="right" if right else "wrong")


TASK = Guess()


def table(logits=(3.0, 1.0, 0.0, 0.0, 0.0, -1.0, -2.0, -3.0)):
    actions = [Action(text=letter) for letter in "abcdefgh"]
    return TablePolicy(actions, torch.tensor(logits), optimizer=partial(torch.optim.SGD, lr=1.0))


def trained(folder, parts, task=TASK, steps=6, stop=None):
    policy = table()
    with Run.create(folder, recipe={"by": "hand"}) as run:
        train(policy, task, parts, run, Plan(steps=stop or steps, prompts=2, answers=8, show="nothing"))
    return policy


def entropy(policy):
    law = policy.probabilities()[0]
    return -(law * law.log()).sum().item()


def test_where_nobody_is_right_a_bonus_alone_makes_answers_differ(tmp_path):
    """GRPO has nothing to learn from; with the bonus answers that few give become likelier."""
    still = trained(tmp_path / "still", grpo(TASK), steps=40)
    assert torch.equal(still.logits, table().logits)
    moved = trained(tmp_path / "moved", novelty(TASK, alpha=1.0), steps=40)
    assert entropy(moved) > entropy(still) + 0.5
    assert moved.probabilities()[0, 0] < 0.6 * still.probabilities()[0, 0]


def test_a_weight_of_0_is_grpo_to_the_last_bit(tmp_path):
    task = Guess("b")
    plain = trained(tmp_path / "plain", grpo(task), task)
    off = trained(tmp_path / "off", novelty(task, alpha=0.0), task)
    on = trained(tmp_path / "on", novelty(task), task)
    assert torch.equal(off.logits, plain.logits)
    assert not torch.equal(on.logits, plain.logits)


def test_a_run_in_two_pieces_is_a_run(tmp_path):
    """With every memory there is: counts, deviations and the table."""
    bonus = Novelty({"group": EpisodicCount(), "run": GlobalCount()}, normalize="std", decay=0.9)

    def parts():
        fresh = Novelty({"group": EpisodicCount(), "run": GlobalCount()}, normalize="std", decay=0.9)
        return replace(grpo(TASK), reward=Sum({"correct": Verifier(), "bonus": fresh}, weights={"bonus": 0.5}))

    assert bonus == parts().reward.parts["bonus"]
    once, twice = parts(), parts()
    whole = trained(tmp_path / "whole", once)
    trained(tmp_path / "broken", parts(), stop=3)
    broken = table()
    with Run.resume(tmp_path / "broken", {"by": "hand"}) as run:
        train(broken, TASK, twice, run, Plan(steps=6, prompts=2, answers=8, show="nothing"))
    assert torch.equal(broken.logits, whole.logits)
    assert twice.reward.state_dict() == once.reward.state_dict()
    counts = once.reward.state_dict()["bonus"]["parts"]["run"]["counts"]
    assert sum(n for scope in counts.values() for n in scope.values()) == 6 * 2 * 8
