"""The implicit reward that learns as it goes: numbers of PRIME by hand, orders, losses, references, resuming."""

import math
from dataclasses import replace

import pytest
import torch
from judge_models import NAN, Says, answered, batch_of, language_model
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from reckon.credit import Streamwise
from reckon.errors import InputError, RunError
from reckon.models import Lora, Optimization
from reckon.models.table import Action, TablePolicy
from reckon.process import best_of_group_weights, opponent_rewards
from reckon.rewards import OnlineImplicitReward, Sum, Verifier
from reckon.samplers import All, collect
from reckon.steps import Pattern
from reckon.types import LearningReward, Outputs, Problem, Reporting, Rng, Verdict

RNG = Rng((0, "reward"))
FAST = Optimization(lr=0.1, beta2=0.999, clip=None)


class Learner:
    """A model whose log-probs are its weights, one for each token of a batch, moved by plain gradient descent."""

    def __init__(self, weights, lr=1.0):
        self.weights = torch.tensor(weights, dtype=torch.float32, requires_grad=True)
        self.lr, self.seen = lr, []

    def outputs(self, seq, want=("logprobs",)):
        return Outputs(logprobs=self._read(seq).detach())

    def _read(self, seq):
        return self.weights[seq.tokens[:, 0], : seq.mask.shape[1]]

    def step(self, seq, columns, loss, want=("logprobs",)):
        self.weights.grad = None
        value = loss(Outputs(logprobs=self._read(seq)), columns).sum()
        value.backward()
        self.seen.append((seq.tokens[:, 0].tolist(), float(value.detach())))
        with torch.no_grad():
            self.weights -= self.lr * self.weights.grad
        return {"policy/loss": float(value.detach()), "policy/grad_norm": float(self.weights.grad.norm())}

    def state_dict(self):
        return {"weights": self.weights.detach().clone()}

    def load_state_dict(self, state):
        self.weights = state["weights"].clone().requires_grad_()

    def twin(self, optimizer):
        return Learner(self.weights.detach().tolist(), optimizer.lr)


def rows(outcomes, group, lengths):
    """A batch in which a row's first token is its number, so that `Learner` knows which row it is."""
    batch = batch_of([["x"] * n for n in lengths], group=group, outcomes=outcomes)
    tokens = torch.arange(len(group))[:, None].expand(batch.seq.mask.shape).contiguous()
    seq = replace(batch.seq, tokens=tokens)
    return replace(batch, rollouts=replace(batch.rollouts, seq=seq), step=0)


def reward_of(weights, reference, lr=0.0, **settings):
    settings.setdefault("normalize", "none")
    optimizer = settings.pop("optimizer", Optimization(lr=lr, clip=None))
    return OnlineImplicitReward(Learner(weights), Says(logprobs=reference), optimizer=optimizer, **settings)


def values(streams):
    (stream,) = streams.values()
    assert (stream.kind, stream.train) == ("reward", True)
    return stream.values


# Two prompts, of which the second has a row nobody could judge; row 3 has one token
OUTCOME, GROUP, LENGTHS = [1.0, 0.0, 0.5, 1.0, NAN], [0, 0, 0, 1, 1], [2, 3, 2, 1, 2]
MODEL = [[-1.0, -2, -3, -4], [-2.0, -1, -1, -4], [-1.0, -1, -1, -4], [-3.0, 0, 0, -4], [-1.0, -5, 0, -4]]
REFERENCE = [[-2.0, -2, -9, -9], [-2.0, -2, -2, -9], [-3.0, -1, -9, -9], [-2.0, -9, -9, -9], [-1.0, -3, -9, -9]]
RATIOS = [[1.0, 0, 0, 0], [0, 1, 1, 0], [2, 0, 0, 0], [-1, 0, 0, 0], [0, -2, 0, 0]]
TOTALS = [1.0, 2.0, 2.0, -1.0, -2.0]
BATCH = rows(OUTCOME, GROUP, LENGTHS)


def test_a_token_is_worth_beta_times_its_log_ratio():
    reward = reward_of(MODEL, REFERENCE, beta=0.5)
    assert values(reward.score(BATCH)).tolist() == (0.5 * torch.tensor(RATIOS)).tolist()
    assert isinstance(reward, LearningReward)
    assert isinstance(reward, Reporting)


def test_whole_and_steps_put_the_sum_on_a_last_token():
    whole = values(reward_of(MODEL, REFERENCE, beta=1.0, per="whole").score(BATCH))
    assert whole.tolist() == [[0, 1, 0, 0], [0, 0, 2, 0], [0, 2, 0, 0], [-1, 0, 0, 0], [0, -2, 0, 0]]
    lines = batch_of([["a\n", "b", "c"], ["d", "e", "f\n"]])
    reward = reward_of([[1.0, 2, 4, 0]] * 2, [[0.0] * 4] * 2, beta=1.0, per="step", splitter=Pattern())
    assert values(reward.score(lines)).tolist() == [[1, 0, 6, 0], [0, 0, 7, 0]]


def test_smoothing_and_the_true_total():
    plain = values(reward_of(MODEL, REFERENCE, beta=1.0, smoothing=0.5).score(BATCH))
    assert plain[1].tolist() == [0 + 0.5 + 0.25, 1 + 0.5, 1, 0]
    true = values(reward_of(MODEL, REFERENCE, beta=1.0, true_total=True).score(BATCH))
    assert true.tolist() == [[1, 0, 0, 0], [0, 1, -1, 0], [2, -1.5, 0, 0], [1, 0, 0, 0], [0, -2, 0, 0]]


def test_normalized_the_largest_return_is_1_whatever_beta():
    """Returns 1; 2, 2, 1; 2; -1; -2, -2."""
    for beta in (0.05, 2.0):
        found = values(reward_of(MODEL, REFERENCE, beta=beta, normalize="batch").score(BATCH))
        torch.testing.assert_close(found, torch.tensor(RATIOS) / 2, rtol=1e-4, atol=0)


def test_the_rewards_are_let_in_over_the_warm_up():
    reward = reward_of(MODEL, REFERENCE, beta=1.0, warmup=4)
    found = [values(reward.score(replace(BATCH, step=step)))[0, 0].item() for step in (0, 1, 3, 4, 100)]
    assert found == pytest.approx([0.2, 0.4, 0.8, 1, 1])


def test_where_model_and_reference_agree_all_is_0():
    reward = OnlineImplicitReward(Learner(MODEL), Says(logprobs=MODEL), optimizer=Optimization(lr=0.0, clip=None))
    streams = reward.assess(BATCH, RNG)
    assert torch.equal(values(streams), torch.zeros(5, 4))
    told = reward.metrics()
    assert told["loss"] == pytest.approx(math.log(2))
    assert (told["accuracy"], told["dpo_acc"], told["ratio"]) == (0.5, 0.5, 0.0)


def test_the_gradient_is_beta_times_what_the_reward_lacks():
    """At equal models beta (1/2 - outcome) for each token of a row, over the four known rows; none for the fifth."""
    beta = 0.05
    reward = OnlineImplicitReward(
        Learner(MODEL), Says(logprobs=MODEL), optimizer=Optimization(lr=1.0, clip=None), beta=beta
    )
    reward.assess(BATCH, RNG)
    moved = reward.model.weights.detach() - torch.tensor(MODEL)
    wanted = [[-beta * (0.5 - OUTCOME[i]) / 4 * (t < LENGTHS[i]) for t in range(4)] for i in range(4)]
    torch.testing.assert_close(moved, torch.tensor([*wanted, [0.0] * 4]), rtol=0, atol=1e-6)
    assert reward.metrics()["grad_norm"] == pytest.approx(beta / 8 * math.sqrt(2 + 3 + 1), rel=1e-4)


def test_the_cross_entropy_is_torchs_with_soft_labels():
    reward = reward_of(MODEL, REFERENCE, beta=0.5)
    reward.assess(BATCH, RNG)
    known, labels = 0.5 * torch.tensor(TOTALS[:4]), torch.tensor(OUTCOME[:4])
    wanted = float(binary_cross_entropy_with_logits(known, labels))
    assert reward.metrics()["loss"] == pytest.approx(wanted, rel=1e-6)
    assert reward.model.seen == [([0, 1, 2, 3], pytest.approx(wanted, rel=1e-6))]


def test_dpo_pairs_whoever_differs_inside_a_group():
    """(0, 1), (0, 2), (2, 1), where the first is the better one; 3 has no known sibling."""
    reward = reward_of(MODEL, REFERENCE, beta=0.5, loss="dpo")
    reward.assess(BATCH, RNG)
    wanted = -sum(float(logsigmoid(torch.tensor(0.5 * (TOTALS[a] - TOTALS[b])))) for a, b in [(0, 1), (0, 2), (2, 1)])
    assert reward.model.seen == [([0, 1, 2, 3], pytest.approx(wanted / 3, rel=1e-6))]


@pytest.mark.parametrize("loss", ["group_dpo", "bon_rm", "bon_acc"])
def test_group_losses_of_the_port_by_a_loop(loss):
    reward = reward_of(MODEL, REFERENCE, beta=0.5, loss=loss, update="reverse")
    reward.assess(BATCH, RNG)
    outcome, group = torch.tensor(OUTCOME), torch.tensor(GROUP)
    z = 0.5 * torch.tensor(TOTALS)
    against = opponent_rewards(z, outcome, group)
    # row 0 against the mean of 1 and 2, row 1 against that of 0 and 2, row 2 against row 1, row 3 against nobody
    assert against.tolist() == pytest.approx([1.0, 0.75, 1.0, 0.0, 0.0])
    terms = [-float(logsigmoid((1 if OUTCOME[i] > 0 else -1) * (z[i] - against[i]))) for i in range(4)]
    if loss == "group_dpo":
        wanted = sum(terms) / 4
    else:
        ranked = torch.where(outcome.isnan(), torch.nan, z) if loss == "bon_rm" else outcome
        wanted = sum(w * t for w, t in zip(best_of_group_weights(ranked, group).tolist(), terms, strict=False))
    assert reward.model.seen[0][1] == pytest.approx(wanted, rel=1e-5)


# When it learns


def assessed(update, lr):
    reward = reward_of(MODEL, REFERENCE, lr=lr, update=update, beta=0.5)
    return values(reward.assess(BATCH, RNG)), values(reward.score(BATCH)), reward


def test_orders():
    none, still, frozen = assessed("none", 5.0)
    assert torch.equal(none, still)
    assert frozen.model.seen == []
    assert "steps" not in frozen.metrics()
    after, later, learned = assessed("after", 5.0)
    assert torch.equal(after, none)
    assert not torch.equal(later, none)
    before, now, also = assessed("before", 5.0)
    assert torch.equal(before, now)
    assert torch.equal(before, later)
    for name in ("loss", "accuracy", "dpo_acc"):  # told as the model was before it saw the rows
        assert frozen.metrics()[name] == learned.metrics()[name] == also.metrics()[name]


def test_without_a_rate_before_is_after_is_none():
    found = [assessed(update, 0.0)[0] for update in ("none", "after", "before")]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_accuracy_and_size_of_the_rewards_by_hand():
    """Pairs (0, 1), (0, 2), (2, 1) with totals 1, 2, 2: wrong, wrong, a tie. dpo_acc: 0.5 * 0.5 / 2; in group 1 1/2.

    Returns of tokens 1, 0; 2, 2, 1; 2, 0; -1; -2, -2: 13 / 10 in size, of outcomes 2.5 / 4.
    """
    reward = reward_of(MODEL, REFERENCE, beta=1.0)
    reward.assess(BATCH, RNG)
    told = reward.metrics()
    assert told["accuracy"] == pytest.approx(0.5 / 3)
    assert told["dpo_acc"] == pytest.approx((0.125 + 0.5) / 2)
    assert told["ratio"] == pytest.approx(1.3 / 0.625)
    assert (told["steps"], told["tokens"]) == (1, 8)


def test_mini_batches_are_cut_between_groups_and_epochs_repeat_them():
    batch = rows([1.0, 0, 1, 0, 1, 0, NAN, NAN], [0, 0, 1, 1, 2, 2, 3, 3], [2] * 8)
    settings = {"optimizer": Optimization(lr=0.1, clip=None, epochs=2, minibatches=2)}
    reward = reward_of([[0.0] * 3] * 8, [[0.0] * 3] * 8, **settings)
    reward.assess(batch, RNG)
    cuts = [taken for taken, _ in reward.model.seen]
    assert len(cuts) == 4
    for epoch in (cuts[:2], cuts[2:]):
        assert sorted(epoch[0] + epoch[1]) == [0, 1, 2, 3, 4, 5]  # the fourth group is unknown
        assert all(row ^ 1 in cut for cut in epoch for row in cut)
    assert reward.metrics()["steps"] == 4


def test_it_learns_from_the_rows_that_train_alone():
    batch = replace(rows([1.0, 0, 1, 0], [0, 0, 1, 1], [2] * 4), train=torch.tensor([True, True, False, True]))
    reward = reward_of([[0.0] * 3] * 4, [[0.0] * 3] * 4)
    reward.assess(batch, RNG)
    assert [sorted(taken) for taken, _ in reward.model.seen] == [[0, 1, 3]]
    assert reward.metrics()["tokens"] == 6


@pytest.mark.parametrize(
    ("outcome", "settings"),
    [([NAN] * 5, {}), ([NAN] * 5, {"loss": "dpo"}), ([1.0] * 5, {"loss": "dpo"})],
    ids=["unknown", "unknown pairs", "no pairs"],
)
def test_without_anything_to_learn_from_no_step_is_made(outcome, settings):
    reward = reward_of(MODEL, REFERENCE, lr=1.0, **settings)
    reward.assess(rows(outcome, GROUP, LENGTHS), RNG)
    assert reward.model.seen == []
    assert reward.metrics()["steps"] == 0


def test_the_policy_as_it_answers_is_the_reference():
    """Its log-probs are read anew; the sampler's, 0 here, are not, and a reference that was given is let go."""
    policy = Learner(MODEL)
    reward = OnlineImplicitReward(policy, Says(), against="policy", normalize="none", beta=1.0, update="none")
    assert reward.reference is None
    assert torch.equal(values(reward.score(BATCH)), torch.zeros(5, 4))
    with torch.no_grad():
        policy.weights -= torch.tensor([1.0, 2, 0, 0])
    assert values(reward.score(BATCH))[0].tolist() == [1, 2, 0, 0]


# Through the loop's parts, with a table and with a language model


class Coins:
    name = "coins"

    def problems(self, split):
        return [Problem(id=str(i), prompt="heads?", answer="heads") for i in range(4)]

    def check(self, problem, text):
        return Verdict(outcome=float(text == problem.answer), answer=text, reason="right")


def test_a_table_learns_what_is_right():
    task = Coins()
    table = TablePolicy(
        [Action(text="heads"), Action(text="tails", length=2)], torch.zeros(2), optimizer=torch.optim.SGD
    )
    reward = OnlineImplicitReward(table, table.reference(), optimizer=FAST, beta=1.0, normalize="none")
    advantage = Streamwise()
    for step in range(30):
        batch = collect(
            sampler=type("All", (), {"draw": lambda _, n, rng: task.problems("train")[:n]})(),
            policy=table,
            verify=lambda r: [task.check(r.problem(i), text) for i, text in enumerate(r.text)],
            keep=All(),
            n=4,
            k=4,
            rng=Rng((0, step)),
            step=step,
        )
        streams = Sum({"right": Verifier(), "process": reward}).assess(batch, Rng((0, step, "reward")))
    said, heads = values(reward.score(batch)), batch.outcome == 1
    assert (said[heads, 0] > 0.3).all()
    assert (said[~heads, 0] < -0.5).all()
    assert (said[:, 1] == 0).all()  # it follows from the first with probability 1
    credit = advantage(batch, streams)
    assert (credit.advantages[heads, 0] > 0).all()
    assert torch.equal(table.logits, torch.zeros(1, 2))  # the policy was not trained


PROBLEMS = [Problem(id=str(i), prompt=f"{i}+1=", answer=str(i + 1)) for i in range(2)]
TEXTS, WHICH, RIGHT = ["1", "5,5", "2", "7"], [0, 0, 1, 1], [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("against", ["initial", "policy"])
@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
def test_a_language_model_three_times_over(lora, against):
    """Policy, reward model and reference; with adapters all on one set of weights. At first every reward is 0."""
    policy = language_model(lora=lora)
    batch = answered(policy, PROBLEMS, TEXTS, group=WHICH, outcomes=RIGHT)
    reward = OnlineImplicitReward(
        policy,
        policy.reference(),
        optimizer=Optimization(lr=1e-2, clip=10.0),
        against=against,
        normalize="none",
        beta=1.0,
    )
    weights = {name: x.clone() for name, x in policy.state_dict()["weights"].items()}
    assert torch.equal(values(reward.assess(batch, RNG)), torch.zeros(batch.seq.mask.shape))
    for step in range(20):
        reward.assess(batch, RNG.child(step))
    assert reward.metrics()["loss"] < 0.2
    assert reward.metrics()["dpo_acc"] == 1
    said = values(reward.score(batch)).sum(dim=1)
    assert (said[torch.tensor(RIGHT) == 0] < -1).all()
    assert all(torch.equal(x, weights[name]) for name, x in policy.state_dict()["weights"].items())
    assert (reward.model.network is policy.network) == (lora is not None)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
@pytest.mark.parametrize("loss", ["ce", "dpo", "bon_rm"])
def test_micro_batches_of_any_size_teach_the_same(lora, loss):
    found = []
    for budget in (8, 1024):
        policy = language_model(lora=lora, tokens_per_batch=budget)
        batch = answered(policy, PROBLEMS, TEXTS, group=WHICH, outcomes=RIGHT)
        update = "reverse" if loss == "bon_rm" else "after"
        reward = OnlineImplicitReward(
            policy, policy.reference(), optimizer=Optimization(lr=1e-2), loss=loss, update=update, normalize="none"
        )
        for step in range(3):
            reward.assess(batch, RNG.child(step))
        found.append(values(reward.score(batch)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
def test_saved_and_loaded_it_goes_on_to_the_last_bit(lora):
    def made():
        policy = language_model(lora=lora)
        optimizer = Optimization(lr=1e-2, minibatches=2, epochs=2, weight_decay=0.1)
        return policy, Sum({"process": OnlineImplicitReward(policy, policy.reference(), optimizer=optimizer)})

    def go(tree, batch, steps):
        return [tree.assess(batch, Rng((step,)))["process"].values for step in steps]

    policy, whole = made()
    batch = answered(policy, PROBLEMS, TEXTS, group=WHICH, outcomes=RIGHT)
    wanted = go(whole, batch, range(4))
    _, first = made()
    go(first, batch, range(2))
    state = first.state_dict()
    later_policy, again = made()
    later_policy.step(batch.seq, {"mask": batch.seq.mask.float()}, lambda o, c: -o.logprobs * c["mask"])
    again.load_state_dict(state)  # the policy has moved on by then: nothing of it may leak into the judge
    for one, other in zip(go(again, batch, range(2, 4)), wanted[2:], strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(wanted[1], wanted[3])


def test_it_is_saved_under_its_name_and_reports_under_it():
    reward = reward_of(MODEL, REFERENCE)
    tree = Sum({"right": Verifier(), "process": reward})
    assert list(tree.state_dict()) == ["process"]
    tree.assess(BATCH, RNG)
    assert tree.metrics()["reward/process/dpo_acc"] == reward.metrics()["dpo_acc"]


# Bad input


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"update": "first"}, "`update` is 'first'"),
        ({"against": "sft"}, "`against` is 'sft'"),
        ({"loss": "kto"}, "`loss` is 'kto'"),
        ({"per": "response"}, "`per` is 'response'"),
        ({"normalize": "batch_norm"}, "`normalize` is 'batch_norm'"),
        ({"beta": 0.0}, "`beta` is 0.0"),
        ({"beta": math.inf}, "`beta` is inf"),
        ({"smoothing": 1.5}, "`smoothing` is 1.5"),
        ({"warmup": -1}, "`warmup` is -1"),
        ({"loss": "bon_rm"}, "does not go with update='after'"),
        ({"update": "reverse"}, "the loss 'ce' does not go with update='reverse'"),
        ({"per": "step"}, "a `splitter`"),
        ({"splitter": Pattern()}, "goes with per='step', and with no other"),
        ({"per": "step", "splitter": "lines"}, "`splitter` is of type str"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=says):
        reward_of(MODEL, REFERENCE, **settings)


def test_a_reference_is_needed_unless_the_policy_is_it():
    with pytest.raises(InputError, match=r"`reference` is missing. Give policy.reference\(\)"):
        OnlineImplicitReward(Learner(MODEL))


def test_log_probs_that_are_not_finite_are_told():
    with pytest.raises(RunError, match=r"not finite. Lower `optimizer.lr`"):
        reward_of([[NAN, 0.0, 0, 0]] * 5, REFERENCE).assess(BATCH, RNG)


def test_another_tokenizer_is_refused():
    policy = language_model()
    batch = answered(policy, PROBLEMS, TEXTS, group=WHICH, outcomes=RIGHT)
    texts = replace(batch.rollouts, text=("other", "words", "than", "these"))
    with pytest.raises(InputError, match=r"online_implicit_reward: .* another tokenizer"):
        OnlineImplicitReward(policy, policy.reference()).score(replace(batch, rollouts=texts))
