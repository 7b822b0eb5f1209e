"""Cooper's judge: its loss by hand, when and from what it learns, and that it goes on exactly."""

import json
import math

import pytest
import torch
from book_judge import (
    NAN,
    OUTCOME,
    PROBLEMS,
    RNG,
    WRONG,
    Numbers,
    batch,
    make_wrong,
    reward_of,
    values,
)
from judge_models import batch_of, language_model

from reckon.errors import InputError, MissingError
from reckon.models import LanguageModel, Lora, Optimization, tiny
from reckon.rewards import OnlineReferenceBased, ReferenceBased
from reckon.rewards._online_reference_based import PairLoss, step_on_pairs
from reckon.tasks import Number
from reckon.types import LearningReward, Outputs, Problem, Reporting, Rng

# The loss (section 6 of the specification)


def by_hand(chosen, rejected, valid):
    """Scores of the valid pairs as the judge's outputs; the loss, and its gradient for each score."""
    rows = [score for c, r, v in zip(chosen, rejected, valid, strict=True) if v for score in (c, r)]
    scores = torch.tensor(rows, dtype=torch.float64)[:, None].requires_grad_()
    share = torch.full((len(rows),), 1 / max(len(rows) // 2, 1), dtype=torch.float64)
    columns = {"last": torch.zeros(len(rows), dtype=torch.int64), "share": share}
    loss = PairLoss()(Outputs(scores=scores), columns).sum()
    loss.backward()
    return float(loss.detach()), scores.grad[:, 0].tolist()


def test_the_loss_of_the_specification():
    """Margins 1 and 0: ln(1 + e^-1) = .313262, ln 2 = .693147, their mean .503204; gradients -s(-1) and -1/2."""
    loss, gradient = by_hand([2.0, 0.5], [1.0, 0.5], [1, 0])
    assert loss == pytest.approx(0.313262, abs=1e-6)
    assert gradient == pytest.approx([-0.268941, 0.268941], abs=1e-6)
    loss, gradient = by_hand([2.0, 0.5], [1.0, 0.5], [1, 1])
    assert loss == pytest.approx(0.503204, abs=1e-6)
    assert gradient == pytest.approx([-0.268941 / 2, 0.268941 / 2, -0.25, 0.25], abs=1e-6)
    assert by_hand([2.0, 0.5], [1.0, 0.5], [0, 0]) == (0.0, [])


def test_what_both_of_a_pair_share_has_no_gradient():
    scores = torch.tensor([2.0, 1.0, 0.5, 0.5])
    bias = torch.zeros((), requires_grad=True)
    columns = {"last": torch.zeros(4, dtype=torch.int64), "share": torch.full((4,), 0.5)}
    loss = PairLoss()(Outputs(scores=(scores + bias)[:, None]), columns).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.503204, abs=1e-6)
    assert bias.grad == 0
    shifted = PairLoss()(Outputs(scores=(scores + 9.0)[:, None]), columns).sum()
    assert float(shifted.detach()) == pytest.approx(float(loss.detach()), abs=1e-6)


def test_the_loss_is_the_mean_over_the_pairs_of_the_whole_step():
    """Pairs b (2 against 1) and e (0.5 against 0.5); the third prompt has no right response and counts nothing."""
    reward = reward_of({"b 85": 2.0, "b 91": 1.0, "e 7": 0.5, "e 8": 0.5})
    reward.assess(batch(), RNG)
    told = reward.metrics()
    assert reward.model.losses == [pytest.approx(0.503204, abs=1e-6)]
    assert told["loss"] == pytest.approx(0.503204, abs=1e-6)
    assert (told["accuracy"], told["margin"]) == (0.75, 0.5)  # a tie counts half
    assert (told["steps"], told["pairs/learned"], told["pairs/n"]) == (1, 2, 2)
    assert told["pairs/share"] == told["pairs/positive_share"] == pytest.approx(2 / 3)
    assert reward.model.score_of("b 85") == pytest.approx(2 + 0.268941 / 2, abs=1e-6)
    assert reward.model.score_of("b 91") == pytest.approx(1 - 0.268941 / 2, abs=1e-6)
    assert reward.model.score_of("e 7") == pytest.approx(0.75, abs=1e-6)
    assert reward.model.score_of("c 85") == 0.0


# What it says


def test_it_says_what_its_judge_says_before_it_learns():
    known = {"a 1": -1.0, "b 85": 2.0, "c 85": 0.5, "e 7": -0.25}
    reward = reward_of(known)
    before = values(reward.score(batch()))
    assert before.tolist() == pytest.approx(torch.tensor([-1, 2, 0.5, 0, -0.25, 0]).sigmoid().tolist())
    assert torch.equal(values(reward.assess(batch(), RNG)), before)
    after = values(reward.score(batch()))
    assert (after[[1, 4]] > before[[1, 4]]).all()
    assert torch.equal(after[[0, 2, 3, 5]], before[[0, 2, 3, 5]])
    assert isinstance(reward, LearningReward)
    assert isinstance(reward, Reporting)


def test_logits_and_verdicts():
    known = {"a 1": -1.0, "b 85": 2.0}
    assert values(reward_of(known, output="logit").score(batch())).tolist() == [-1, 2, 0, 0, 0, 0]
    assert values(reward_of(known, output="binary").assess(batch(), RNG)).tolist() == [0, 1, 0, 0, 0, 0]


def test_the_verdict_is_no_part_of_the_reward():
    reward = reward_of({"b 85": 2.0})
    other = batch(outcome=[1.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    assert torch.equal(values(reward.score(other)), values(reward.score(batch())))


def test_without_the_reference_it_is_not_shown():
    reward = reward_of(show_reference=False)
    reward.score(batch())
    assert not any("reference_answer" in text for text in reward.model.texts)
    shown = reward_of(keep=(2, 1))
    shown.score(batch())
    assert shown.model.texts[1] == (
        "<question>sum 0?</question>\n<reference_answer>85</reference_answer>\n<completion>b 5</completion>"
    )


def test_a_problem_without_a_reference_has_no_reward_and_no_pair():
    given = batch_of(
        [["a 1"], ["b 2"]], group=[0, 1], outcomes=[NAN, NAN], problems=[Problem(id="a", prompt="q"), *PROBLEMS[:1]]
    )
    reward = reward_of()
    assert values(reward.assess(given, RNG)).isnan().tolist() == [True, False]
    assert reward.metrics()["pairs/n"] == 0


# When it learns, and from what


@pytest.mark.parametrize(
    "how",
    [
        {"outcome": [0.0] * 6},
        {"outcome": [NAN] * 6},
        {"negatives": lambda problem, text, rng: text},  # returned as it is: right
        {"negatives": lambda problem, text, rng: ""},  # the reference implementation takes it
        {"negatives": lambda problem, text, rng: None},
        {"negatives": "rejected", "outcome": [NAN, 1.0, 1.0, 1.0, 1.0, 0.0]},
    ],
    ids=["none right", "none known", "unchanged", "empty", "nothing", "none rejected"],
)
def test_without_a_valid_pair_no_step_is_made(how):
    """Not even by momentum or decay, of which a gradient of zero would still take a step."""
    outcome = how.pop("outcome", OUTCOME)
    optimizer = Optimization(lr=0.1, weight_decay=0.5)
    reward = OnlineReferenceBased(Begins(), Numbers(), optimizer=optimizer, **{"negatives": make_wrong, **how})
    weights = {name: x.clone() for name, x in reward.model.state_dict()["weights"].items()}
    reward.assess(batch(outcome=outcome), RNG)
    assert all(torch.equal(x, weights[name]) for name, x in reward.model.state_dict()["weights"].items())
    told = reward.metrics()
    assert (told["steps"], told["loss"], told["pairs/share"]) == (0, 0, 0)
    assert math.isnan(told["accuracy"])


def test_every_so_many_steps():
    reward = reward_of(every=3)
    for step in range(7):
        reward.assess(batch(step), RNG.child(step))
        assert bool(reward.metrics()) == (step in (2, 5))
    assert len(reward.model.losses) == 2


@pytest.mark.parametrize(
    ("positive", "chosen"),
    [("first", ["b 85", "e 7"]), ("all", ["b 85", "c 85", "e 7"]), ("lowest_score", ["c 85", "e 7"])],
)
def test_which_right_response_becomes_a_pair(positive, chosen):
    reward = reward_of({"b 85": 1.0, "c 85": -1.0}, positive=positive)
    reward.assess(batch(), RNG)
    met = [reward.model.texts[token - 1] for token in reward.model.met[0]]
    completions = [text.partition("<completion>")[2].removesuffix("</completion>") for text in met]
    assert completions == [one for text in chosen for one in (text, WRONG[text])]


def test_a_random_positive_depends_on_the_step_s_numbers_alone():
    def met(seed):
        reward = reward_of(positive="random")
        reward.assess(batch(), Rng((seed,)))
        return [reward.model.texts[token - 1] for token in reward.model.met[0]]

    assert met(3) == met(3)
    assert len({tuple(met(seed)) for seed in range(20)}) == 2  # b or c; the other prompt has one right response


def test_rejected_responses_as_negatives():
    reward = reward_of(negatives="rejected")
    reward.assess(batch(outcome=[0.0, 1.0, 1.0, 0.0, 1.0, 0.0]), RNG)
    met = [reward.model.texts[token - 1].partition("<completion>")[2] for token in reward.model.met[0]]
    assert [text.removesuffix("</completion>") for text in met] == ["b 85", "a 1", "e 7", "d 7"]


@pytest.mark.parametrize(("negatives", "text"), [("change_number", "3 and 85"), ("swap_operator", "80 + 5 = 85")])
def test_negatives_by_name(negatives, text):
    given = batch_of([[text]], outcomes=[1.0], problems=PROBLEMS[:1])
    reward = reward_of(negatives=negatives)
    reward.assess(given, RNG)
    chosen, rejected = (reward.model.texts[token - 1].partition("<completion>")[2] for token in reward.model.met[0])
    assert chosen == f"{text}</completion>"
    wrong = rejected.removesuffix("</completion>")
    assert Number()(wrong, "85").outcome == 0
    if negatives == "change_number":  # the reasoning is wrong too
        assert wrong.split()[0] != "3"
        assert len(wrong) == len(text)


def test_epochs_and_mini_batches():
    reward = reward_of(positive="all", optimizer=Optimization(lr=0.1, clip=None, epochs=2, minibatches=2))
    reward.assess(batch(), RNG)
    assert [len(met) // 2 for met in reward.model.met] == [2, 1, 2, 1]
    for epoch in (reward.model.met[:2], reward.model.met[2:]):
        assert len({token for met in epoch for token in met}) == 6
    assert reward.metrics()["steps"] == 4


# With a language model


class Begins:
    """Stands where a policy does: what the judge begins as, here with a head that is not zero."""

    def __init__(self, **settings):
        self.settings = settings

    def twin(self, optimizer, *, value_head=False):
        assert value_head
        return language_model(optimizer=optimizer, **self.settings)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
def test_micro_batches_of_any_size_teach_the_same(lora):
    """The mean is over all pairs, however they are computed: three at once, or one by one."""
    told = []
    for budget in (8, 4096):
        begins = Begins(lora=lora, tokens_per_batch=budget)
        optimizer = Optimization(lr=1e-3)
        reward = OnlineReferenceBased(begins, Numbers(), optimizer=optimizer, negatives=make_wrong, positive="all")
        for step in range(3):
            reward.assess(batch(step), RNG.child(step))
            told.append([reward.metrics()[name] for name in ("loss", "margin", "grad_norm", "pairs/learned")])
    assert told[0][3] == 3
    assert told[0][2] > 1e-3
    for one, other in zip(told[:3], told[3:], strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_its_scores_are_those_of_a_judge_that_stays_as_it_is():
    reward = OnlineReferenceBased(Begins(), Numbers(), negatives=make_wrong)
    still = ReferenceBased(language_model())
    found = values(reward.assess(batch(), RNG))
    torch.testing.assert_close(found, still.score(batch())["reference_based"].values)
    assert not torch.equal(values(reward.score(batch())), found)


def test_it_learns_which_of_a_pair_is_right():
    reward = OnlineReferenceBased(Begins(), Numbers(), optimizer=Optimization(lr=1e-2), negatives=make_wrong)
    for step in range(30):
        reward.assess(batch(step), RNG.child(step))
    told = reward.metrics()
    assert told["accuracy"] == 1
    assert told["loss"] < 0.1


def test_it_begins_as_the_policy_with_a_head_that_says_nothing():
    policy = language_model(head=False)
    reward = OnlineReferenceBased(policy, Numbers(), optimizer=Optimization(lr=1e-2), negatives=make_wrong)
    weights = {name: x.clone() for name, x in policy.state_dict()["weights"].items()}
    assert values(reward.assess(batch(), RNG)).tolist() == [0.5] * 6
    for step in range(5):
        reward.assess(batch(step), RNG.child(step))
    assert reward.metrics()["accuracy"] == 1
    assert all(torch.equal(x, weights[name]) for name, x in policy.state_dict()["weights"].items())


def test_policy_and_judge_are_adapters_of_one_set_of_weights():
    policy = language_model(head=False, lora=Lora(rank=2))
    reward = OnlineReferenceBased(policy, Numbers(), optimizer=Optimization(lr=1e-2), negatives=make_wrong)
    assert reward.model.network is policy.network
    begun = {name: x.clone() for name, x in policy.state_dict()["weights"].items()}
    reward.assess(batch(), RNG)
    assert all(torch.equal(x, begun[name]) for name, x in policy.state_dict()["weights"].items())


def test_weights_are_float32_where_products_are_not():
    """At 0.02 the neighbors of a bfloat16 lie 1.2e-4 apart, so that a step of 1e-5 would be no step at all."""

    class Half:
        def twin(self, optimizer, *, value_head=False):
            network = tiny.make_network(layers=1, width=16, heads=2, context=256)
            return LanguageModel(
                network, tiny.make_tokenizer(), optimizer=optimizer, dtype="bfloat16", device="cpu", value_head=True
            )

    reward = OnlineReferenceBased(Half(), Numbers(), optimizer=Optimization(lr=1e-5), negatives=make_wrong)
    assert reward.model.dtype == torch.bfloat16
    with torch.no_grad():
        reward.model.head.weight.fill_(0.02)
    before = {name: x.clone() for name, x in reward.model.state_dict()["weights"].items()}
    reward.assess(batch(), RNG)
    after = reward.model.state_dict()["weights"]
    assert {x.dtype for x in after.values()} == {torch.float32}
    moved = (after["value_head.weight"] - before["value_head.weight"]).abs()
    assert moved.max() == pytest.approx(1e-5, rel=0.01)
    assert moved.max().bfloat16() + torch.tensor(0.02).bfloat16() == torch.tensor(0.02).bfloat16()


def test_a_saved_judge_goes_on_exactly():
    def made():
        return OnlineReferenceBased(Begins(), Numbers(), optimizer=Optimization(lr=1e-2), negatives=make_wrong)

    whole, first, second = made(), made(), made()
    for step in range(4):
        whole.assess(batch(step), RNG.child(step))
    for step in range(2):
        first.assess(batch(step), RNG.child(step))
    second.load_state_dict(first.state_dict())
    for step in range(2, 4):
        second.assess(batch(step), RNG.child(step))
    assert torch.equal(values(second.score(batch())), values(whole.score(batch())))
    assert second.metrics() == whole.metrics()


def test_a_text_that_is_too_long():
    """85 of tags and line ends, 8 of question and reference, 4 of a response: 97, where the negative has 99."""
    long = {**WRONG, "b 85": "b 9100"}
    settings = {"negatives": lambda problem, text, rng: long[text], "optimizer": Optimization(lr=1e-2)}
    begins = Begins(context=97)
    with pytest.raises(InputError, match="online_reference_based: prompt and response of 'p0' have 99 tokens"):
        OnlineReferenceBased(begins, Numbers(), **settings).assess(batch(), RNG)
    reward = OnlineReferenceBased(begins, Numbers(), **settings, too_long="unknown")
    reward.assess(batch(), RNG)
    assert (reward.metrics()["pairs/n"], reward.metrics()["pairs/learned"]) == (2, 1)
    reward = OnlineReferenceBased(Begins(context=80), Numbers(), **settings, too_long="cut")
    reward.assess(batch(), RNG)  # cut before the response: both read alike
    assert (reward.metrics()["pairs/n"], reward.metrics()["pairs/learned"], reward.metrics()["steps"]) == (2, 0, 0)


def test_one_step_on_tokens():
    model = language_model(optimizer=Optimization(lr=0.0))
    told = step_on_pairs(model, [([5, 6, 7], [5, 6, 8]), ([5, 9], [5, 9, 9])])
    assert told["policy/loss"] > 0
    assert told["policy/lr"] == 0


# From a folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a judge lies as `reckon fit` leaves it."""
    path = tmp_path_factory.mktemp("verify")
    language_model().save_pretrained(path)
    (path / "judge.json").write_text(json.dumps({"kind": "reference_based", "show_reference": True, "keep": [3, 3]}))
    return path


def test_it_begins_as_the_judge_of_a_folder(folder):
    optimizer = Optimization(lr=1e-2)
    reward = OnlineReferenceBased(object(), Numbers(), folder=str(folder), optimizer=optimizer, negatives=make_wrong)
    still = ReferenceBased(language_model(), keep=(3, 3))
    found = values(reward.assess(batch(), RNG))
    torch.testing.assert_close(found, still.score(batch())["reference_based"].values, rtol=1e-2, atol=1e-2)
    assert reward.model.optimization == optimizer
    assert reward.judge.keep == (3, 3)
    assert not torch.equal(values(reward.score(batch())), found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_judge_from_a_folder_computes_in_the_dtype_that_was_asked_for(folder, dtype):
    reward = OnlineReferenceBased(object(), Numbers(), folder=str(folder), dtype=dtype)
    assert reward.model.dtype == getattr(torch, dtype)
    assert {weight.dtype for weight in reward.model.network.parameters()} == {torch.float32}


def test_a_folder_is_looked_at_before_it_is_opened(folder, tmp_path):
    def of(where, **settings):
        return OnlineReferenceBased(object(), Numbers(), folder=str(where), **settings)

    with pytest.raises(MissingError, match=r"no judge in .*nowhere"):
        of(tmp_path / "nowhere")
    for setting in ({"show_reference": False}, {"keep": (1, 2)}):
        with pytest.raises(InputError, match="`show_reference` and `keep` are those of the fit in `folder`"):
            of(folder, **setting)
    (tmp_path / "judge.json").write_text('{"kind": "outcome_model"}')
    with pytest.raises(InputError, match="of kind 'outcome_model', which is not shown the reference answer"):
        of(tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"positive": "best"}, "`positive` is 'best'; it must be one of first, random, all, lowest_score"),
        ({"negatives": "change_letter"}, "`negatives` is 'change_letter'; it must be one of change_number, swap_op"),
        ({"negatives": "rejected", "positive": "all"}, "with negatives='rejected' it is always the first"),
        ({"every": 0}, "`every` is 0 and `workers` 1; both must be 1 or more"),
        ({"workers": 0}, "`workers` 0"),
        ({"replay_rows": 0}, "`replay_rows` is 0; it must be 1 or more"),
        ({"seconds": 0.0}, "`seconds` is 0.0; it must be above 0"),
        ({"output": "score"}, "`output` is 'score'; it must be probability, logit or binary"),
        ({"too_long": "drop"}, "`too_long` is 'drop'"),
        ({"keep": (0, 0)}, r"`keep` is \(0, 0\)"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=says):
        reward_of(**settings)
