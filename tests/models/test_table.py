"""The table against softmax calculus by hand, and through the shared update."""

import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from reckon.errors import InputError
from reckon.models.table import Action, TablePolicy, draw
from reckon.types import Batch, Credit, End, Problem, Rng

RNG = Rng((3, "policy"))
SGD = partial(torch.optim.SGD, lr=0.5)
ADAM = partial(torch.optim.Adam, lr=0.1)


def problems(n):
    return [Problem(id=str(i), prompt=f"question {i}", answer=str(i)) for i in range(n)]


def three(optimizer=SGD, **settings):
    """Probabilities 1/2, 1/3, 1/6 and lengths 1, 3, 2."""
    actions = [
        Action(text="short"),
        Action(text="long", length=3),
        Action(text="cut", length=2, end=End.LENGTH),
    ]
    return TablePolicy(actions, torch.tensor([3.0, 2.0, 1.0]).log(), optimizer=optimizer, **settings)


@dataclass
class Reinforce:
    """-advantage * logprob, summed over tokens and divided by the responses of the mini-batch."""

    want = ("logprobs",)

    def prepare(self, batch, credit):
        n = len(batch.outcome)
        return {"advantages": credit.advantages, "mask": credit.mask, "share": torch.full((n,), 1 / n)}

    def __call__(self, outputs, columns):
        return -(outputs.logprobs * columns["advantages"] * columns["mask"]) * columns["share"][:, None]


def batch_of(rollouts, advantages):
    batch = Batch.given(rollouts, torch.zeros(len(rollouts.text)), train=True)
    mask = rollouts.seq.mask
    spread = advantages[:, None] * mask
    return batch, Credit(advantages=spread, weights=torch.ones_like(spread), mask=mask)


def test_probabilities():
    assert three().probabilities()[0].tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 6])


def test_draws_by_hand():
    """Heights 1/2, 5/6, 1; and 0, 1, 1: what has no probability is never drawn."""
    laws = torch.tensor([[3.0, 2.0, 1.0], [0.0, 2.0, 0.0]])
    uniforms = torch.tensor([[0.0, 0.49, 0.5, 0.83, 0.84, 0.99]] * 2, dtype=torch.float64)
    assert draw(laws, uniforms).tolist() == [[0, 0, 1, 1, 2, 2], [1] * 6]


def test_draws_follow_the_table():
    rollouts = three().sample(problems(60), 100, RNG)
    for text, p in (("short", 1 / 2), ("long", 1 / 3), ("cut", 1 / 6)):
        share = rollouts.text.count(text) / 6000
        assert share == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 6000))


def test_rollouts_look_like_a_language_models():
    rollouts = three().sample(problems(2), 8, RNG)
    assert rollouts.seq.group.tolist() == [0] * 8 + [1] * 8
    assert {"short", "long", "cut"} == set(rollouts.text)
    for row, text in enumerate(rollouts.text):
        action, length, end = {"short": (0, 1, 0), "long": (1, 3, 0), "cut": (2, 2, 2)}[text]
        mask, tokens = rollouts.seq.mask[row], rollouts.seq.tokens[row]
        assert mask.tolist() == [True] * length + [False] * (3 - length)
        assert tokens[mask].tolist() == [action, *[3] * (length - 1)]
        assert rollouts.logprobs[row].tolist() == pytest.approx([math.log((3 - action) / 6), 0, 0])
        assert "".join(rollouts.pieces[row]) == text
        assert len(rollouts.pieces[row]) == length
        assert rollouts.end[row] == end
    assert not rollouts.truncated


def test_the_same_rng_gives_the_same_answers_and_another_gives_others():
    one, two, other = (three().sample(problems(4), 8, rng).text for rng in (RNG, RNG, RNG.child("x")))
    assert one == two != other


def test_greedy_takes_the_likeliest():
    rollouts = three().greedy(problems(3))
    assert rollouts.text == ("short",) * 3
    assert rollouts.truncated  # not drawn from the law that logprobs tell


def test_the_world_may_choose_the_words():
    """An action right 70% of the time: the policy's log-prob does not know which it was."""
    able = Action(text=lambda problem, luck: str(problem.answer) if luck < 0.7 else "no")
    policy = TablePolicy([able], torch.zeros(1), optimizer=SGD)
    rollouts = policy.sample(problems(40), 50, RNG)
    right = [text == rollouts.problem(i).answer for i, text in enumerate(rollouts.text)]
    assert sum(right) / 2000 == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / 2000))
    assert rollouts.logprobs.abs().max() == 0
    assert policy.greedy(problems(40)).text == policy.greedy(problems(40)).text


def test_each_context_has_its_own_row():
    logits = torch.tensor([[0.0, -10.0], [-10.0, 0.0]])
    policy = TablePolicy(
        [Action(text="a"), Action(text="b")], logits, optimizer=SGD, contexts=["question 1", "question 0"]
    )
    rollouts = policy.sample(problems(2), 3, RNG)
    assert rollouts.text == ("b",) * 3 + ("a",) * 3  # question 0 is the second row
    assert [int(prompt) for prompt in rollouts.seq.prompts] == [1, 0]
    with torch.no_grad():
        policy.logits.zero_()
    batch, credit = batch_of(rollouts, torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]))
    policy.update(Reinforce(), batch, credit, RNG)
    # Only question 1 had credit: mean over 6 of 1 (onehot(a) - 1/2), three times, times lr 1/2.
    assert policy.logits.tolist() == [[0.125, -0.125], [0.0, 0.0]]


def test_outputs_are_the_samplers_logprobs_and_the_entropy():
    policy = three()
    rollouts = policy.sample(problems(2), 8, RNG)
    outputs = policy.outputs(rollouts.seq, want=("logprobs", "entropy"))
    assert torch.equal(outputs.logprobs, rollouts.logprobs)
    assert not outputs.logprobs.requires_grad
    entropy = math.log(2) / 2 + math.log(3) / 3 + math.log(6) / 6  # 1.0114 nats, all of it at the choice
    assert outputs.entropy[0].tolist() == pytest.approx([entropy, 0, 0], abs=1e-6)
    assert policy.outputs(rollouts.seq).entropy is None


@pytest.mark.parametrize("name", ["values", "hidden"])
def test_a_table_has_no_values(name):
    policy = three()
    with pytest.raises(InputError, match=f"{name} were asked of a table of logits"):
        policy.outputs(policy.greedy(problems(1)).seq, want=(name,))


def test_one_step_by_hand():
    """Two responses, action 0 with advantage 1 and action 1 with -2, p = (1/2, 1/3, 1/6).

    Gain: mean of A (onehot - p) = [1 (1/2, -1/3, -1/6) - 2 (-1/2, 2/3, -1/6)] / 2 = (3/4, -5/6, 1/12), times lr 1/2.
    """
    policy = three()
    rollouts = policy.sample(problems(1), 40, RNG)
    rows = torch.tensor(sorted([rollouts.text.index("short"), rollouts.text.index("long")]))
    chosen = rollouts.take(rows)
    advantages = torch.tensor([1.0 if text == "short" else -2.0 for text in chosen.text])
    before = policy.logits.detach()[0].clone()
    metrics = policy.update(Reinforce(), *batch_of(chosen, advantages), RNG)
    moved = (policy.logits.detach()[0] - before).tolist()
    assert moved == pytest.approx([3 / 8, -5 / 12, 1 / 24], abs=1e-6)
    assert metrics["policy/loss"] == pytest.approx(-(math.log(1 / 2) - 2 * math.log(1 / 3)) / 2, abs=1e-6)
    assert metrics["policy/grad_norm"] == pytest.approx(math.hypot(3 / 4, 5 / 6, 1 / 12), abs=1e-6)
    assert metrics["policy/lr"] == 0.5


def test_the_loss_may_report_on_itself():
    class Reporting(Reinforce):
        def diagnostics(self, outputs, columns):
            return {"rows": torch.tensor(float(len(outputs.logprobs)))}

    policy = three()
    batch = batch_of(policy.sample(problems(2), 4, RNG), torch.ones(8))
    assert policy.update(Reporting(), *batch, RNG)["policy/rows"] == 8


def test_epochs_and_minibatches_make_that_many_steps():
    policy = three(epochs=3, minibatches=2)
    metrics = policy.update(Reinforce(), *batch_of(policy.sample(problems(4), 4, RNG), torch.ones(16)), RNG)
    assert metrics["policy/steps"] == 6


def test_the_reference_stays():
    policy = three()
    reference = policy.reference()
    rollouts = policy.sample(problems(2), 8, RNG)
    policy.update(Reinforce(), *batch_of(rollouts, torch.arange(16.0)), RNG)
    assert torch.equal(reference.outputs(rollouts.seq).logprobs, rollouts.logprobs)
    assert not torch.allclose(policy.outputs(rollouts.seq).logprobs, rollouts.logprobs)


@pytest.mark.parametrize("optimizer", [SGD, ADAM])
def test_saved_and_restored_it_goes_on_exactly(optimizer):
    def learn(policy, step):
        rollouts = policy.sample(problems(4), 4, RNG.child(step))
        policy.update(Reinforce(), *batch_of(rollouts, torch.arange(16.0) / 8), RNG.child(step))

    whole, first, second = three(optimizer), three(optimizer), three(optimizer)
    for step in range(6):
        learn(whole, step)
    for step in range(3):
        learn(first, step)
    saved = first.state_dict()
    learn(first, 99)  # what was saved is a copy
    second.load_state_dict(saved)
    for step in range(3, 6):
        learn(second, step)
    assert torch.equal(whole.logits, second.logits)


@dataclass
class Square:
    """Half the distance from a target, squared, of every value; beside it the logits go down the likeliest way."""

    target: float
    want = ("logprobs", "values")

    def prepare(self, batch, credit):
        return {"mask": credit.mask}

    def __call__(self, outputs, columns):
        error = 0.5 * (outputs.values - self.target).square() - outputs.logprobs
        return torch.where(columns["mask"], error, 0.0)


def test_a_tables_values_are_of_contexts_and_of_what_was_chosen_there():
    policy = TablePolicy(
        [Action(text="a", length=3), Action(text="b", length=1)],
        torch.zeros(2, 2),
        optimizer=partial(torch.optim.SGD, lr=1.0),
        contexts=["question 0", "question 1"],
        values=True,
    )
    assert policy.values.shape == (2, 3)
    rollouts = policy.greedy(problems(2))
    assert rollouts.text == ("a", "a")
    batch, credit = batch_of(rollouts, torch.zeros(2))
    metrics = policy.update(Square(target=2.0), batch, credit, RNG)
    # One token before the choice, two after it: gradients -2 and -4 in each of two contexts, and (-1/2, 1/2) of logits.
    assert policy.values.tolist() == [[2.0, 4.0, 0.0]] * 2
    assert metrics["policy/grad_norm"] == pytest.approx(math.sqrt(2 * (4 + 16 + 1 / 2)))
    found = policy.outputs(rollouts.seq, ("values",)).values
    assert found.tolist() == [[2.0, 4.0, 4.0]] * 2


@pytest.mark.parametrize("optimizer", [SGD, ADAM])
def test_a_table_with_values_goes_on_exactly(optimizer):
    def learn(policy, step):
        rollouts = policy.sample(problems(4), 4, RNG.child(step))
        policy.update(Square(target=1.0), *batch_of(rollouts, torch.zeros(16)), RNG.child(step))

    whole, first, second = (three(optimizer, values=True) for _ in range(3))
    for step in range(6):
        learn(whole, step)
    for step in range(3):
        learn(first, step)
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        learn(second, step)
    assert torch.equal(whole.logits, second.logits)
    assert torch.equal(whole.values, second.values)
    with pytest.raises(InputError, match="not one of values of shape"):
        three(values=True).load_state_dict(three().state_dict())


def test_a_table_without_values_is_asked_for_none():
    policy = three()
    with pytest.raises(InputError, match=r"values were asked of a table of logits.*give the table values=True"):
        policy.outputs(policy.greedy(problems(1)).seq, ("values",))


def test_a_table_of_another_shape_is_not_restored():
    other = TablePolicy([Action(text="a")], torch.zeros(1), optimizer=SGD)
    with pytest.raises(InputError, match=r"not one of logits of shape \(1, 3\)"):
        three().load_state_dict(other.state_dict())


@pytest.mark.parametrize(
    ("logits", "contexts", "message"),
    [
        (torch.zeros(3), None, r"2 actions needs logits of shape \(2,\), not \(3,\)"),
        (torch.zeros(2), ["a", "b"], r"needs logits of shape \(2, 2\), not \(2,\)"),
        (torch.tensor([0.0, -math.inf]), None, "a logit is not finite"),
        (torch.zeros(2, 2), ["a", "a"], "a context stands twice"),
    ],
)
def test_refuses_tables_that_do_not_fit(logits, contexts, message):
    with pytest.raises(InputError, match=message):
        TablePolicy([Action(text="a"), Action(text="b")], logits, optimizer=SGD, contexts=contexts)


def test_refuses_an_empty_action():
    with pytest.raises(InputError, match="`length` is 0, but a response has at least 1 token"):
        Action(text="", length=0)


def test_refuses_prefixes_and_unknown_prompts():
    with pytest.raises(InputError, match="cannot continue a prefix"):
        three().sample(problems(1), 1, RNG, prefixes=[[1]])
    one = TablePolicy([Action(text="a")], torch.zeros(1, 1), optimizer=SGD, contexts=["question 0"])
    with pytest.raises(InputError, match="the prompt of problem '1' has no row in the table"):
        one.greedy(problems(2))
