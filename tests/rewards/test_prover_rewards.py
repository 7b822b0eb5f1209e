"""Step advantages of provers: counted in completions by hand, and by functions that know the chances."""

import math
from dataclasses import replace

import pytest
import torch
from judge_models import answered, batch_of, language_model

from reckon.costs import Ledger
from reckon.credit import LeaveOneOut
from reckon.errors import InputError
from reckon.models import Lora, Optimization, Sampling, tiny
from reckon.models.table import Action, TablePolicy
from reckon.rewards import ExactAdvantage, MonteCarloAdvantage, Sum, Verifier
from reckon.samplers import All, collect
from reckon.steps import Pattern
from reckon.types import LearningReward, Problem, Reporting, Rng, Verdict

RNG = Rng((0, "reward"))


def codes(rows):
    """Tokens of rows of characters, as wide as `batch_of` makes them; the end token "" is 0."""
    tokens = torch.zeros(len(rows), max(map(len, rows)) + 1, dtype=torch.int64)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor([ord(piece) if piece else 0 for piece in row])
    return tokens


class Ends:
    """Right is what ends in R, wrong what ends in W; of anything else nobody knows."""

    name = "ends"

    def problems(self, split):
        return [Problem(id="p", prompt="?", answer="R")]

    def check(self, problem, text):
        outcome = {"R": 1.0, "W": 0.0}.get(text[-1:])
        return Verdict(outcome=outcome, answer=text[-1:], reason="right")


class Scripted:
    """Of the completions of a text, the first `wins[text]` end right and the others wrong; None: all unknown."""

    def __init__(self, wins):
        self.wins, self.asked = wins, []

    def sample(self, problems, k, rng, prefixes=None):
        rows, given = [], []
        for prefix in prefixes:
            text = "".join(map(chr, prefix))
            self.asked.append(text)
            wins = self.wins[text]
            rows += [[*text, "?" if wins is None else "R" if j < wins else "W", ""] for j in range(k)]
            given += [len(prefix)] * k
        group = [g for g in range(len(problems)) for _ in range(k)]
        return batch_of(rows, group=group, given=given, problems=list(problems), tokens=codes(rows)).rollouts

    def twin(self, optimizer):
        return Scripted(dict(self.wins))

    def copy_from(self, other):
        self.wins = dict(other.state_dict()["wins"])

    def state_dict(self):
        return {"wins": dict(self.wins)}

    def load_state_dict(self, state):
        self.wins = dict(state["wins"])


# a\n | b\n | R<end> and a\n | W<end>, answers to one problem
PIECES = [["a", "\n", "b", "\n", "R", ""], ["a", "\n", "W", ""]]
WINS = {"": 1, "a\n": 2, "a\nb\n": 3}


def responses(pieces=PIECES, outcomes=(1.0, 0.0), step=0):
    batch = batch_of(pieces, outcomes=list(outcomes), tokens=codes(pieces))
    return replace(batch, step=step)


def counted(wins=WINS, **settings):
    settings.setdefault("n_mc", 4)
    return MonteCarloAdvantage(Scripted(wins), Ends(), **settings)


def values(streams, kind):
    ((found, stream),) = streams.items()
    assert (found, stream.kind, stream.train) == (kind, "advantage", True)
    return stream.values


# Counted


def test_a_step_gets_what_it_did_to_the_share_of_right_completions():
    """Chances 1/4, 2/4, 3/4 and the verdict 1; 1/4, 2/4 and the verdict 0. What both begin with is finished once."""
    part = counted()
    found = values(part.assess(responses(), RNG), "monte_carlo_advantage")
    assert found.tolist() == [[0.25] * 6 + [0], [0.25, 0.25, -0.5, -0.5, 0, 0, 0]]
    assert sorted(part.finisher.asked) == ["", "a\n", "a\nb\n"]
    told = part.metrics()
    assert (told["rollouts"], told["tokens"], told["start"]) == (12, 24, 0.25)  # each adds a letter and the end
    # Variances of q: 1/16, 1/12, 1/16, of a verdict 0. Of A: 7/48, 7/48, 1/16; 7/48, 1/12: mean 7/60, over 1/10 of A^2
    assert told["noise"] == pytest.approx(7 / 6)
    assert isinstance(part, LearningReward)
    assert isinstance(part, Reporting)


def test_it_is_added_to_a_steps_own_tokens():
    streams = Sum({"right": Verifier(), "progress": counted()}, weights={"progress": 2.0}).score(responses())
    credit = LeaveOneOut()(responses(), streams).advantages
    assert credit.tolist() == [[1.5] * 6 + [0], [-0.5, -0.5, -2, -2, 0, 0, 0]]


def test_the_best_of_k_is_counted_without_bias():
    """With 1, 2, 3 right of 4 the best of 2 is right 1/2, 5/6 and 1 of the times: 1 - C(4 - c, 2) / C(4, 2)."""
    found = values(counted(prover_k=2).score(responses()), "monte_carlo_advantage")
    assert found[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 6, 1 / 6, 0, 0, 0], abs=1e-6)
    assert found[1, :4].tolist() == pytest.approx([1 / 3, 1 / 3, -5 / 6, -5 / 6], abs=1e-6)
    one = counted({"": 2}, n_mc=20, prover_k=4)
    one.assess(responses([["R", ""]], [1.0]), RNG)
    assert one.metrics()["start"] == pytest.approx(0.36842, abs=1e-5)
    few = counted(n_mc=3, wins={"": 1, "a\n": 1, "a\nb\n": 1}, prover_k=2)
    few.assess(responses(), RNG)
    assert math.isnan(few.metrics()["noise"])  # a variance of the best of 2 takes 4 completions


def test_what_nobody_could_check_credits_nothing_on_both_sides():
    found = values(counted({**WINS, "a\n": None}).score(responses()), "monte_carlo_advantage")
    assert found[0, :4].isnan().all()
    assert found[0, 4:].tolist() == [0.25, 0.25, 0]
    assert found[1, :4].isnan().all()
    streams = {"right": Verifier().score(responses())["verifier"], **counted({**WINS, "a\n": None}).score(responses())}
    assert LeaveOneOut()(responses(), streams).advantages[0].tolist() == [1, 1, 1, 1, 1.25, 1.25, 0]


def test_an_empty_response_has_no_step():
    part = counted()
    found = values(part.assess(responses([[""], ["R", ""]], [0.0, 1.0]), RNG), "monte_carlo_advantage")
    assert found.tolist() == [[0, 0, 0], [0.75, 0.75, 0]]


def test_a_completion_is_cut_where_the_policys_own_response_would_be():
    class Limited(Scripted):
        sampling = Sampling(max_new_tokens=8)

        def sample(self, problems, k, rng, prefixes=None, limits=None):
            self.limits = limits
            return super().sample(problems, k, rng, prefixes)

        def twin(self, optimizer):
            return Limited(self.wins)

    part = MonteCarloAdvantage(Limited(WINS), Ends(), n_mc=1)
    part.score(responses(PIECES[:1], [1.0]))
    assert part.finisher.limits == [8, 6, 4]


# Which prover


@pytest.mark.parametrize(("refresh", "proves"), [(0, [0, 0, 0, 0, 0]), (1, [0, 1, 2, 3, 4]), (2, [0, 0, 2, 2, 4])])
def test_the_prover_is_the_policy_before_training_or_as_it_was_some_steps_ago(refresh, proves):
    """The policy that wins s of 4 in step s."""
    policy = Scripted({"": 0})
    part = MonteCarloAdvantage(policy, Ends(), n_mc=4, refresh=refresh)
    found = []
    for step in range(5):
        policy.wins[""] = step
        part.assess(responses([["R", ""]], [1.0], step), RNG)
        found.append(4 * part.metrics()["start"])
    assert found == proves
    assert policy.asked == []  # its copy was asked


def test_a_prover_is_saved_and_loaded_as_it_was():
    def told(part, step):
        part.assess(responses([["R", ""]], [1.0], step), RNG)
        return 4 * part.metrics()["start"]

    policy = Scripted({"": 2})
    first = MonteCarloAdvantage(policy, Ends(), n_mc=4, refresh=2)
    assert told(first, 2) == 2
    policy.wins[""] = 3
    again = MonteCarloAdvantage(policy, Ends(), n_mc=4, refresh=2)
    again.load_state_dict(first.state_dict())
    assert [told(again, 3), told(again, 4)] == [2, 3]
    with pytest.raises(InputError, match="whose prover was another kind"):
        again.load_state_dict({})


PROBLEMS = [Problem(id="0", prompt="1+1=", answer="2"), Problem(id="1", prompt="2+2=", answer="4")]


class Parity:
    """Right are texts whose characters add up to an even number: about half of what anybody writes."""

    name = "parity"

    def problems(self, split):
        return PROBLEMS

    def check(self, problem, text):
        return Verdict(outcome=float(sum(map(ord, text)) % 2 == 0), answer=text, reason="right")


def judged_batch(model):
    texts = ["2,3,2", "5", "4,4", "1,2"]
    return answered(model, PROBLEMS, texts, group=[0, 0, 1, 1], outcomes=[1.0, 0, 1, 0])


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
def test_a_language_model_proves_as_it_was_and_is_charged_for_it(lora):
    policy = language_model(lora=lora, optimizer=Optimization(lr=1e-1))
    batch = judged_batch(policy)

    def said(part):
        return part.assess(batch, RNG)["monte_carlo_advantage"].values

    part = MonteCarloAdvantage(policy, Parity(), splitter=Pattern(","), n_mc=16)
    before = said(part)
    assert len(before.unique()) > 4
    for _ in range(3):
        policy.step(batch.seq, {"mask": batch.seq.mask.float()}, lambda o, c: -o.logprobs * c["mask"])
    assert torch.equal(said(part), before)
    live = MonteCarloAdvantage(policy, Parity(), splitter=Pattern(","), n_mc=16)
    assert not torch.equal(said(live), before)
    part.finisher.copy_from(policy)
    assert torch.equal(said(part), said(live))
    with Ledger() as ledger:
        Sum({"progress": part}).assess(batch, RNG)
    told = part.metrics()
    assert told["tokens"] >= told["rollouts"] > 0
    # The last token of a completion is drawn and not computed; what they begin with is.
    assert ledger.metrics()["computed/reward/progress"] > told["tokens"] - told["rollouts"]


def test_another_model_proves_by_name(small_model, tmp_path):
    policy = language_model()
    batch = judged_batch(policy)
    part = MonteCarloAdvantage(policy, Parity(), splitter=Pattern(","), n_mc=8, prover=str(small_model))
    assert part.finisher is not policy
    assert part.finisher.network.config.hidden_size == 16
    assert part.finisher.sampling == policy.sampling
    assert part.assess(batch, RNG)["monte_carlo_advantage"].values.isfinite().all()
    assert part.state_dict() == {}
    part.load_state_dict({})
    tokenizer = tiny.make_tokenizer()
    tokenizer.add_tokens(["<more>"])
    tiny.make_network(layers=1, width=16, heads=2, context=96).save_pretrained(tmp_path / "odd")
    tokenizer.save_pretrained(tmp_path / "odd")
    with pytest.raises(InputError, match="whose tokens are others than the policy's"):
        MonteCarloAdvantage(policy, Parity(), prover=str(tmp_path / "odd"))


class Coins:
    name = "coins"

    def problems(self, split):
        return [Problem(id=str(i), prompt="heads?", answer="heads") for i in range(4)]

    def check(self, problem, text):
        return Verdict(outcome=float(text == problem.answer), answer=text, reason="right")


def test_a_table_proves_from_the_prompt():
    """Heads with chance 0.8: the value of the prompt within four standard errors, and each choice's less it."""
    task = Coins()
    table = TablePolicy(
        [Action(text="heads"), Action(text="tails", length=2)],
        torch.tensor([math.log(4), 0.0]),
        optimizer=torch.optim.SGD,
    )
    batch = collect(
        sampler=type("All", (), {"draw": lambda _, n, rng: task.problems("train")[:n]})(),
        policy=table,
        verify=lambda r: [task.check(r.problem(i), text) for i, text in enumerate(r.text)],
        keep=All(),
        n=4,
        k=4,
        rng=Rng((0,)),
        step=0,
    )
    part = MonteCarloAdvantage(table, task, n_mc=4000)
    found = values(part.assess(batch, RNG), "monte_carlo_advantage")
    assert part.metrics()["start"] == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 16000))
    start = batch.outcome - found[:, 0]
    assert (start - 0.8).abs().max() < 4.5 * math.sqrt(0.8 * 0.2 / 4000)
    assert torch.equal(found[:, 1], torch.where(batch.seq.mask[:, 1], found[:, 0], 0.0))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n_mc": 0}, "`n_mc` is 0 and `prover_k` 1"),
        ({"n_mc": 3, "prover_k": 4}, "counted in k completions or more"),
        ({"prover_k": 0}, "`prover_k` is 0; it must be 1 or more"),
        ({"refresh": -1}, "`refresh` is -1"),
        ({"refresh": 1, "prover": "tiny"}, "0 with a `prover`"),
        ({"splitter": r"\n"}, "`splitter` is of type str"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=says):
        counted(**settings)


def test_a_response_that_was_begun_for_the_policy_is_refused():
    batch = batch_of([["a", "\n", "R", ""]], given=[2], tokens=codes([["a", "\n", "R", ""]]))
    with pytest.raises(InputError, match="response 0 goes on from a given prefix"):
        counted().score(batch)


# Known


def says(*rows):
    return lambda rollouts, steps: torch.tensor(rows, dtype=torch.float64)


LINES = Pattern()


def test_known_chances_by_steps_and_by_tokens():
    batch = batch_of([["a", "\n", "b", ""], ["c", ""]])
    by_step = ExactAdvantage(says([0.1, 0.2, 0.5], [0.4, 0.8, math.nan]), splitter=LINES)
    found = values(by_step.score(batch), "exact_advantage")
    expected = torch.tensor([[0.1, 0.1, 0.3, 0.3, 0], [0.4, 0.4, 0, 0, 0]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    by_token = ExactAdvantage(says([0.1, 0.2, 0.5, 0.75, 1.0], [0.4, 0.8, 0.0, 7.0, 7.0]))
    expected = torch.tensor([[0.1, 0.3, 0.25, 0.25, 0], [0.4, -0.8, 0, 0, 0]])
    torch.testing.assert_close(values(by_token.score(batch), "exact_advantage"), expected, rtol=0, atol=1e-7)


def test_the_best_of_k_of_a_known_prover_in_closed_form():
    """1 - 0.9^4, 1 - 0.8^4, 1 - 0.5^4."""
    part = ExactAdvantage(says([0.1, 0.2, 0.5]), splitter=LINES, prover_k=4)
    found = values(part.score(batch_of([["a", "\n", "b"]])), "exact_advantage")
    assert found[0].tolist() == pytest.approx([0.5904 - 0.3439, 0.5904 - 0.3439, 0.9375 - 0.5904, 0], abs=1e-6)


def test_a_step_may_be_measured_against_another_number():
    part = ExactAdvantage(says([0.1, 0.2, 0.5]), splitter=LINES, before=says([0.3, 0.25]))
    found = values(part.score(batch_of([["a", "\n", "b"]])), "exact_advantage")
    assert found[0].tolist() == pytest.approx([-0.1, -0.1, 0.25, 0], abs=1e-7)


def test_a_given_prefix_is_in_no_step():
    part = ExactAdvantage(says([0.2, 0.5, 1.0]))
    found = values(part.score(batch_of([["a", "\n", "b", ""]], given=[2])), "exact_advantage")
    assert found[0].tolist() == pytest.approx([0, 0, 0.3, 0.5, 0], abs=1e-7)


@pytest.mark.parametrize(
    ("function", "settings", "told"),
    [
        (says([0.1, 0.2]), {}, r"`values` gave numbers of shape \(1, 2\), and a tensor of shape \(1, 3\) is needed"),
        (lambda rollouts, steps: [0.1], {}, "`values` gave a list"),
        (says([0.1, 0.2, 1.5]), {}, r"`values` gave a chance that is not in \[0, 1\]"),
        (says([0.1, 0.2, math.nan]), {}, "`values` gave a number that is not finite"),
        (says([0.1, 0.2, 0.5]), {"before": says([0.1])}, r"`before` gave numbers of shape \(1, 1\)"),
        (says([0.1, 0.2, 0.5]), {"before": says([0.1, math.inf])}, "`before` gave a number that is not finite"),
        (0.5, {}, "`values` is of type float; it must be a function"),
        (says([0.1, 0.2, 0.5]), {"before": 0.5}, "`before` is of type float; it must be a function"),
        (says([0.1, 0.2, 0.5]), {"prover_k": 0}, "`prover_k` is 0"),
        (says([0.1, 0.2, 0.5]), {"splitter": ","}, "`splitter` is of type str"),
    ],
)
def test_functions_that_cannot_be(function, settings, told):
    with pytest.raises(InputError, match=f"exact_advantage: {told}"):
        ExactAdvantage(function, **settings).score(batch_of([["a", "b"]]))
