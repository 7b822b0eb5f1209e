"""Combinations and models inside adapters: what a library serves, and what is refused."""

import json
import math
import pickle
from dataclasses import dataclass

import pytest
import torch
from judge_models import language_model

from reckon.errors import InputError
from reckon.models import Sampling, load_model
from reckon.models.tiny import make_tokenizer
from reckon.rewards import (
    Fitted,
    Length,
    OnlineReferenceBased,
    OverlongPenalty,
    ReferenceBased,
    Sum,
    ThinkFormat,
    Verifier,
)
from reckon.rewards._combine import And, Centered, Not, Or, Probability
from reckon.rewards._combine_groups import MinMax, NormalizeThenSum, Standardized
from reckon.rewards._implicit import ImplicitReward
from reckon.rewards._references import ReferenceStore
from reckon.rewards.adapters import rows_of, to_openrlhf, to_trl, to_verl
from reckon.samplers import All, Uniform, collect
from reckon.tasks import ChainArithmetic
from reckon.types import Problem, Rng

TASK = ChainArithmetic(operations=4, train=20, dev=5, test=5)


def trl(function, batch, **columns):
    """Calls a function as TRL's trainer would have for the rollouts of a batch of ours."""
    rollouts, seq = batch.rollouts, batch.seq
    problems = [rollouts.problem(row) for row in range(len(rollouts.text))]
    logged = {}
    values = function(
        prompts=[problem.prompt for problem in problems],
        completions=list(rollouts.text),
        completion_ids=[tokens[mask].tolist() for tokens, mask in zip(seq.tokens, seq.mask, strict=True)],
        answer=[problem.answer for problem in problems],
        id=[problem.id for problem in problems],
        log_extra=logged.__setitem__,
        log_metric=logged.__setitem__,
        **columns,
    )
    return values, logged


@pytest.fixture(scope="module")
def policy():
    return load_model("tiny", sampling=Sampling(max_new_tokens=8), dtype="float32")


@pytest.fixture(scope="module")
def batch(policy):
    """Two problems, three responses each, of a model that knows nothing; judged by the task."""

    def verify(rollouts):
        return [TASK.check(rollouts.problem(row), text) for row, text in enumerate(rollouts.text)]

    return collect(Uniform(TASK), policy, verify, All(), n=2, k=3, rng=Rng((0, 1)), step=1)


def same(values, stream):
    expected = stream.values.tolist()
    return all(
        (v is None and math.isnan(e)) or v == pytest.approx(e, abs=1e-6) for v, e in zip(values, expected, strict=True)
    )


def test_a_nested_combination_is_one_function_and_shows_its_components(batch):
    """And(right, Or(brief, not thinking)): what the node says in our own loop it says to TRL, to the last digit."""
    tree = And(
        {
            "right": Probability(reward=Verifier(), eps=0.1),
            "either": Or(
                {
                    "brief": Centered(reward=Length(l_max=9), references=0.5),
                    "plain": Not(reward=Probability(reward=ThinkFormat(), eps=0.1)),
                }
            ),
        }
    )
    values, logged = trl(to_trl({"good": tree}, "ours", task=TASK), batch)
    streams = Sum({"good": tree}).score(batch)
    assert same(values, streams["good/and"])
    assert {f"ours/{name}" for name in streams} <= set(logged)
    assert len(streams) >= 7  # two nodes, three leaves below, and what the leaves are made of


def test_what_compares_a_prompts_responses_gets_its_groups(batch):
    tree = NormalizeThenSum({"right": Verifier(), "brief": Length(l_max=9)}, whiten=False)
    values, _ = trl(to_trl({"z": tree}, task=TASK, num_generations=3), batch)
    assert same(values, Sum({"z": tree}).score(batch)["z/normalize_then_sum"])
    assert sum(values[:3]) == pytest.approx(0, abs=1e-5)
    for refused in (lambda: to_trl({"z": tree}, task=TASK), lambda: to_verl({"z": tree}, task=TASK)):
        with pytest.raises(InputError, match="'z' is a NormalizeThenSum, which compares the responses to one prompt"):
            refused()
    z = Standardized(reward=Length(l_max=9), over="group")
    values, _ = trl(to_trl({"z": z}, num_generations=3), batch)
    assert same(values, Sum({"z": z}).score(batch)["z/standardized"])
    with pytest.raises(InputError, match=r"'z' is a Standardized, .* OpenRLHF hands over one response at a time"):
        to_openrlhf({"z": z})


@pytest.mark.parametrize("node", [MinMax, Standardized])
def test_running_statistics_have_no_place_to_run(node, batch):
    made = node(reward=Length(l_max=9))
    with pytest.raises(InputError, match="which learns while the policy does"):
        to_trl({"r": made})
    made.assess(batch, Rng((0,)))
    values, _ = trl(to_trl({"r": made}, frozen=True), batch)
    (name,) = [name for name, stream in Sum({"r": made}).score(batch).items() if stream.train]
    assert same(values, Sum({"r": made}).score(batch)[name])


def test_reference_levels_are_found_by_the_problems_id(batch):
    store = ReferenceStore("mean")
    store.fit(Length(l_max=9), batch.rollouts, policy_id="tiny")
    tree = {"centered": Centered(reward=Length(l_max=9), references=store)}
    function = to_trl(tree)
    values, _ = trl(function, batch)
    assert same(values, Sum(tree).score(batch)["centered/centered"])
    for row in (0, 3):  # a mean reference: what is left of a group adds up to nothing
        assert sum(values[row : row + 3]) == pytest.approx(0, abs=1e-6)
    with pytest.raises(
        InputError, match="'centered' looks reference levels up by problem, and TRL handed over no `id`"
    ):
        function(prompts=["1+1="], completions=["x"], completion_ids=[[5]])
    with pytest.raises(InputError, match=r"OpenRLHF handed over no `id`\. It has no place for one"):
        to_openrlhf(tree, tokenizer=make_tokenizer())(["qx"], ["q"], ["1"])
    assert trl(pickle.loads(pickle.dumps(function)), batch)[0] == values


def test_a_judge_that_reads_tokens_needs_the_policys_tokenizer(policy, batch):
    """A model a step away from its reference; to TRL it says what it says of the rollouts themselves."""
    reference = policy.reference()
    judge = load_model("tiny", dtype="float32")
    with torch.no_grad():
        for parameter in judge.network.parameters():
            parameter.add_(0.02)
    reward = ImplicitReward(judge, reference=reference, per="response", how="sum")
    values, _ = trl(to_trl(reward, tokenizer=make_tokenizer()), batch)
    stream = reward.score(batch)["implicit_reward"]
    assert values == pytest.approx(stream.values.tolist(), abs=1e-4)
    assert max(map(abs, values)) > 1e-3
    with pytest.raises(
        InputError, match=r"a reward reads the .* tokens?.*, and TRL hands over none\. Give `tokenizer=`"
    ):
        trl(to_trl(reward), batch)
    with pytest.raises(InputError, match="'implicit_reward' may read the prompt, and verl hands over none"):
        to_verl(reward, tokenizer=make_tokenizer())
    tokens = ImplicitReward(judge, reference=reference)
    with pytest.raises(InputError, match="gives a value for every token, and TRL takes one reward for a response"):
        trl(to_trl(tokens, tokenizer=make_tokenizer()), batch)


def test_a_judge_of_another_vocabulary_is_refused():
    other = make_tokenizer()
    other.add_tokens(["new"])

    @dataclass(frozen=True)
    class Model:
        tokenizer: object

        def outputs(self, seq, want=("logprobs",)):
            raise AssertionError

    @dataclass(frozen=True)
    class Judge:
        model: Model

        def score(self, batch):
            raise AssertionError

    with pytest.raises(InputError, match="the model of 'judge' has another vocabulary than `tokenizer`"):
        to_trl(Judge(Model(other)), tokenizer=make_tokenizer())
    assert to_trl(Judge(Model(make_tokenizer())), tokenizer=make_tokenizer()).__name__ == "judge"


def test_reference_answers_that_are_not_there_are_missed():
    reward = object.__new__(ReferenceBased)  # the model is not needed to tell
    with pytest.raises(InputError, match="'reference_based' reads reference answers, and TRL handed over none"):
        to_trl(reward)(prompts=["p"], completions=["x"], completion_ids=[[5]])


def test_a_stored_judge_that_is_shown_the_answer_misses_it_too(tmp_path):
    language_model().save_pretrained(tmp_path)
    asked = {"prompts": ["1+1="], "completions": ["2"], "completion_ids": [[5]]}
    for shown in (True, False):
        (tmp_path / "judge.json").write_text(json.dumps({"kind": "reference_based", "show_reference": shown}))
        function = to_trl(Fitted(str(tmp_path), device="cpu"))
        if shown:
            with pytest.raises(InputError, match="'fitted' reads reference answers, and TRL handed over none"):
                function(**asked)
        else:
            (chance,) = function(**asked)
            assert 0 < chance < 1
    online = to_trl(OnlineReferenceBased(language_model(head=False), TASK), frozen=True)
    with pytest.raises(InputError, match="'online_reference_based' reads reference answers"):
        online(**asked)


def test_every_library_says_the_same_of_the_same_response():
    """One combination, four ways: 1 for the verdict, less (7 - 6) / 2 for 7 tokens of 8 with a buffer of 2."""
    tokenizer = make_tokenizer()
    reward = Sum({"correct": Verifier(), "overlong": OverlongPenalty(l_max=8, buffer=2)})
    problem = Problem(id="a", prompt="1+1=", answer="2")
    text = "1,1,,2"
    task = TASK
    assert task.check(problem, text).outcome == 1
    ids = [*tokenizer(text)["input_ids"], 1]
    assert len(ids) == 7
    to_trls = to_trl(reward, task=task)(prompts=["1+1="], completions=[text], completion_ids=[ids], answer=["2"])
    to_verls = to_verl(reward, task=task, tokenizer=tokenizer)("sums", text, "2", {})["score"]
    query = [f"1+1={text}<end>"]
    to_theirs = to_openrlhf(reward, task=task, tokenizer=tokenizer)(query, ["1+1="], ["2"])["rewards"].tolist()
    assert to_trls == to_theirs == [to_verls] == [0.5]


def test_rows_make_the_problems_a_reward_was_fitted_on():
    assert [row["id"] for row in rows_of(TASK, "train", 3)] == [p.id for p in list(TASK.problems("train"))[:3]]
