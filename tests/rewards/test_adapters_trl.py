"""Rewards called as TRL calls reward functions, without TRL."""

import asyncio
import functools
import math
import pickle
import subprocess
import sys
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reckon.errors import InputError, RunError
from reckon.models.tiny import make_tokenizer
from reckon.rewards import (
    CosineLength,
    Format,
    Gate,
    KeywordReward,
    KLReward,
    Length,
    OverlongPenalty,
    Sum,
    ThinkFormat,
    Verifier,
    as_reward,
)
from reckon.rewards.adapters import from_trl, rows_of, to_trl, to_trl_parts
from reckon.tasks import ChainArithmetic
from reckon.types import Problem, Stream

TOKENIZER = make_tokenizer()
TASK = ChainArithmetic(operations=4, train=20, dev=5, test=5)


class Trainer:
    """What a trainer of TRL's does around a reward function."""

    def __init__(self):
        self.extra, self.metrics = {}, {}

    def call(self, function, prompts, completions, ids=None, **columns):
        assert callable(function)
        assert function.__name__.isidentifier()
        values = function(
            prompts=prompts,
            completions=completions,
            completion_ids=[[5] * 3 for _ in completions] if ids is None else ids,
            **columns,
            trainer_state=types.SimpleNamespace(global_step=4),
            log_extra=self.extra.__setitem__,
            log_metric=self.metrics.__setitem__,
            environments=[object() for _ in completions],
        )
        assert len(values) == len(prompts)
        assert all(value is None or isinstance(value, float) for value in values)
        return values


def call(function, prompts, completions, ids=None, **columns):
    return Trainer().call(function, prompts, completions, ids, **columns)


def test_a_rule_verifier_works_by_running_the_tasks_checker():
    rows = rows_of(TASK, "train", 2)
    right = [TASK.solution(problem) for problem in list(TASK.problems("train"))[:2]]
    columns = {name: [row[name] for row in rows] for name in ("answer", "id", "domain")}
    function = to_trl(Verifier(right=1, wrong=-1), task=TASK)
    assert function.__name__ == "verifier"
    assert call(function, [row["prompt"] for row in rows], [right[0], "no"], **columns) == [1.0, -1.0]


@pytest.mark.parametrize("column", ["answer", "solution", "ground_truth", "gold"])
def test_the_reference_answer_may_stand_in_any_column(column):
    function = to_trl(Verifier(), task=TASK, answer="gold" if column == "gold" else None)
    assert call(function, ["1+1=", "1+1="], ["2", "3"], **{column: ["2", "2"]}) == [1, 0]


def test_a_combination_is_one_function_whose_components_are_logged():
    """0.5 * gate + length: `ab` thinks not, so its gate is min(0, 0.5) = 0; lengths 2 and 5 of l_max 10, p = 0.5.

    Length v3 at x: 0.2 -> 1 - (1 - 0.2/0.5)^2 = 0.64; 0.5 -> 1.
    """
    gate = Gate(condition=ThinkFormat(), then=KeywordReward(words=["but"], cap=1))
    reward = Sum({"gate": gate, "length": Length(l_max=10)}, weights={"gate": 0.5}, watch=())
    trainer = Trainer()
    texts = ["ab but", "<think>x</think> but"]
    assert trainer.call(to_trl(reward, "mine"), ["p", "p"], texts, [[3, 3], [3] * 5]) == pytest.approx([0.64, 1.25])
    assert trainer.extra["mine/gate"] == [0, 0.25]
    assert trainer.extra["mine/length"] == pytest.approx([0.64, 1.0])
    assert trainer.metrics["rewards/mine/gate/mean"] == 0.125
    assert trainer.metrics["rewards/mine/gate/std"] == 0.125
    assert trainer.metrics["rewards/mine/gate/unknown"] == 0
    assert trainer.metrics["rewards/mine/length/mean"] == pytest.approx(0.82)


def test_nan_becomes_none_and_a_statistic_of_nothing_is_not_logged():
    def rare(completions):
        return [None if text == "skip" else 1.0 for text in completions]

    trainer = Trainer()
    assert trainer.call(to_trl({"rare": rare, "one": lambda completions: [1.0] * 2}), ["p"] * 2, ["skip", "x"]) == [
        1,
        2,
    ]
    assert trainer.call(to_trl(rare), ["p"] * 2, ["skip", "skip"]) == [None, None]
    assert trainer.extra["rare/rare"] == [None, None]
    assert trainer.metrics["rewards/rare/rare/unknown"] == 1
    assert "rewards/rare/rare/mean" not in trainer.metrics  # NaN would spoil the average of the whole logging step


def test_in_groups_a_response_that_lacks_what_its_siblings_have_is_unknown():
    """The rule of reckon's own totals: counted as 0 it would be punished, left out it could be better off."""

    def rare(completions):
        return [None if text == "skip" else 1.0 for text in completions]

    reward = {"rare": rare, "one": lambda completions: [1.0] * len(completions)}
    texts = ["skip", "x", "skip", "skip"]
    assert call(to_trl(reward, num_generations=2), list("ppqq"), texts) == [None, 2, 1, 1]
    assert call(to_trl(reward), list("ppqq"), texts) == [1, 2, 1, 1]


def test_conversations_are_read_as_the_last_message():
    prompts = [[{"role": "user", "content": "Hi"}]] * 3
    completions = [
        [{"role": "assistant", "content": "but"}],
        [{"role": "assistant", "content": "x"}, {"role": "assistant", "content": "but but"}],
        [{"role": "assistant", "content": [{"type": "text", "text": "but"}, {"type": "image", "image": None}]}],
    ]
    got = call(to_trl(KeywordReward(words=["but"], weight=1, cap=2)), prompts, completions)
    assert got == [0.5, 1, 0.5]
    assert call(to_trl(KeywordReward()), prompts[:1], [[]]) == [0]


def test_a_tokenizer_tells_which_responses_ended():
    ids = TOKENIZER(r"\boxed{1}")["input_ids"]
    function = to_trl(Format(), tokenizer=TOKENIZER)
    assert call(function, ["p", "p"], [r"\boxed{1}"] * 2, [[*ids, 1], ids]) == [0.5, 0]


class ZScore:
    """A reward that compares the responses to a prompt, as combinations by group say of themselves."""

    group_level = True

    def score(self, batch):
        values = torch.tensor([float(len(text)) for text in batch.rollouts.text])
        means = torch.stack([values[batch.seq.group == g].mean() for g in batch.seq.group.tolist()])
        return {"z": Stream(values=values - means)}


def test_rewards_that_compare_a_prompts_responses_need_whole_groups():
    function = to_trl(ZScore(), num_generations=2)
    assert call(function, list("ppqq"), ["a", "abc", "ab", "ab"]) == [-1, 1, 0, 0]  # 1 - 2, 3 - 2
    with pytest.raises(InputError, match=r"'z_score' is a ZScore, which compares .* Pass num_generations=\."):
        to_trl(ZScore())
    with pytest.raises(InputError, match="'mine/condition' is a ZScore"):
        to_trl({"mine": Gate(condition=ZScore(), then=ThinkFormat())})
    with pytest.raises(InputError, match="3 responses that are not whole groups of 2"):
        call(function, list("ppq"), ["a", "b", "c"])
    with pytest.raises(InputError, match="4 responses that are not whole groups of 2"):
        call(function, list("pqqp"), ["a", "b", "c", "d"])
    with pytest.raises(InputError, match="`num_generations` is 1"):
        to_trl(ZScore(), num_generations=1)


class Tokens:
    """A reward with a value for every token."""

    def score(self, batch):
        return {"tokens": Stream(values=torch.zeros(batch.seq.mask.shape))}


class Bonus:
    """An advantage, which is no reward."""

    def score(self, batch):
        return {"bonus": Stream(values=torch.zeros(len(batch.rollouts.text)), kind="advantage")}


class Judge:
    """A judge that learns."""

    def score(self, batch):
        return {"judge": Stream(values=torch.ones(len(batch.rollouts.text)))}

    def assess(self, batch, rng):
        return self.score(batch)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (Tokens(), "'tokens' gives a value for every token, and TRL takes one reward for a response"),
        (Bonus(), "'bonus' gives a stream of kind advantage, and TRL takes one reward"),
        (Format(), "'format' reads why a response ended, and TRL hands over none"),
        (Sum({"a": ThinkFormat()}, watch=["a"]), "no reward here trains"),
    ],
)
def test_streams_that_trl_has_no_place_for_are_refused(reward, message):
    with pytest.raises(InputError, match=message):
        call(to_trl(reward), ["p"], ["x"])


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (Verifier(), "'verifier' is a Verifier and reads verdicts, and TRL hands over none. Give `task=`"),
        (Gate(condition=Verifier(), then=ThinkFormat()), "'gate/condition' is a Verifier and reads verdicts"),
        (CosineLength(l_max=4), "'cosine_length' is a CosineLength and reads verdicts"),
        (KLReward(policy=None, reference=None), "'kl_reward' is a KLReward, which gives every token its own value"),
        (Judge(), "'judge' is a Judge, which learns while the policy does, .* Pass frozen=True"),
        ({"two words": Length(l_max=3)}, "'two words' cannot name a reward function"),
        (3, "a reward is of type int"),
    ],
)
def test_rewards_that_trl_cannot_serve_are_refused_before_training(reward, message):
    with pytest.raises(InputError, match=message):
        to_trl(reward)


def test_a_judge_that_learns_may_be_frozen():
    assert call(to_trl(Judge(), frozen=True), ["p"], ["x"]) == [1]


def test_a_watched_stream_of_tokens_is_let_pass():
    class Both:
        def score(self, batch):
            watched = Stream(values=torch.zeros(batch.seq.mask.shape), train=False)
            return {"one": Stream(values=torch.ones(len(batch.rollouts.text))), "tokens": watched}

    assert call(to_trl(Both()), ["p"], ["x"]) == [1]


def test_a_missing_reference_answer_is_told_at_once():
    with pytest.raises(
        InputError, match=r"needs a column 'answer' or 'solution' or 'ground_truth', .* it has .'level'."
    ):
        call(to_trl(Verifier(), task=TASK), ["p"], ["x"], level=[1])
    with pytest.raises(InputError, match=r"the column that `answer` names is not there: .* 'gold'"):
        call(to_trl(ThinkFormat(), answer="gold"), ["p"], ["x"])


def test_rewards_that_look_up_by_problem_need_its_id():
    class Centered:
        references = ("a store",)

        def score(self, batch):
            return {"c": Stream(values=torch.zeros(len(batch.rollouts.text)))}

    with pytest.raises(
        InputError, match="'centered' looks reference levels up by problem, and TRL handed over no `id`"
    ):
        call(to_trl(Centered()), ["p"], ["x"])
    assert call(to_trl(Centered()), ["p"], ["x"], id=["a"]) == [0]


def test_the_parts_of_a_sum_keep_their_weights():
    def brief(completions):
        return [1.0] * len(completions)

    reward = Sum(
        {"think": ThinkFormat(), "brief": as_reward(brief).parts["brief"]}, weights={"think": 3}, watch=["brief"]
    )
    functions, weights = to_trl_parts(reward)
    assert [function.__name__ for function in functions] == ["think", "brief"]
    assert weights == [3, 0]
    assert [call(f, ["p"], ["<think></think>"]) for f in functions] == [[0.5], [1]]


# TRL's functions as rewards


def test_a_function_gets_what_trl_would_give_it(make_batch):
    got = {}

    def mine(prompts, completions, completion_ids, solution, trainer_state, log_metric, **kwargs):
        got.update(kwargs, prompts=prompts, completions=completions, solution=solution, step=trainer_state.global_step)
        got["ids"] = completion_ids
        log_metric("x", 1.0)
        return [1.0, None]

    problems = [Problem(id="a", prompt="q", answer="4", columns={"level": 3})]
    batch = make_batch(["x", "y"], lengths=[1, 2], problems=problems)
    ((name, stream),) = from_trl(mine).score(batch).items()
    assert name == "mine"
    assert stream.values[0] == 1
    assert stream.values[1].isnan()
    assert got["prompts"] == ["q", "q"]
    assert got["completions"] == ["x", "y"]
    assert got["solution"] == ["4", "4"]
    assert got["level"] == [3, 3]
    assert got["step"] == 1
    assert [len(ids) for ids in got["ids"]] == [1, 2]


def test_messages_and_columns_can_be_asked_for(make_batch):
    def mine(prompts, completions, gold, **kwargs):
        return [
            float(c[0]["content"] == g and p[0]["role"] == "user")
            for p, c, g in zip(prompts, completions, gold, strict=True)
        ]

    batch = make_batch(["0", "y"], group=[0, 0])
    reward = from_trl(mine, columns={"gold": "answer"}, messages=True)
    assert reward.score(batch)["mine"].values.tolist() == [1, 0]
    chat = Problem(id="c", prompt=({"role": "user", "content": "Hi"},))

    def plain(prompts, completions):
        return [float(p == "user: Hi" and c == "y") for p, c in zip(prompts, completions, strict=True)]

    batch = make_batch(["y"], problems=[chat])
    assert from_trl(plain, messages=False).score(batch)["plain"].values.tolist() == [1]


def test_a_row_without_a_reference_is_not_asked_about(make_batch):
    def strict(completions, solution, **kwargs):
        assert None not in solution
        return [float(len(s)) for s in solution]

    problems = [Problem(id="a", prompt="q", answer="44"), Problem(id="b", prompt="r")]
    batch = make_batch(["x", "y", "z"], group=[0, 1, 1], problems=problems)
    values = from_trl(strict).score(batch)["strict"].values.tolist()
    assert values[0] == 2
    assert math.isnan(values[1])
    assert math.isnan(values[2])
    nobody = make_batch(["y"], problems=problems[1:])
    assert from_trl(strict).score(nobody)["strict"].values.isnan().all()


async def waits(completions, bonus=0.0, **kwargs):
    return [len(text) + bonus for text in completions]


def loops(completions, **kwargs):
    """A plain function that runs an event loop of its own, as those that ask a server often do."""
    return asyncio.run(waits(completions))


class Factored:
    def __init__(self, limit):
        self.limit = limit

    def __call__(self, completion_ids, **kwargs):
        return [float(len(ids) > self.limit) for ids in completion_ids]


def get_factored(limit):
    return Factored(limit)


def test_async_functions_settings_and_factories(make_batch):
    batch = make_batch(["ab", "c"], lengths=[2, 1])
    assert from_trl(waits).score(batch)["waits"].values.tolist() == [2, 1]
    assert from_trl(loops).score(batch)["loops"].values.tolist() == [2, 1]
    assert from_trl(waits, bonus=1).score(batch)["waits"].values.tolist() == [3, 2]
    assert from_trl(get_factored, limit=1).score(batch)["Factored"].values.tolist() == [1, 0]


def short(completions, **kwargs):
    return [1.0]


def number(completions, **kwargs):
    return 1.0


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (3, {}, "3 is no reward function. A model goes in as reckon.rewards.SequenceClassifier"),
        (torch.nn.Linear(1, 1), {}, "is no reward function"),
        (waits, {"bonsu": 1}, "'bonsu' is not a setting of 'waits'. It has completions, bonus, kwargs"),
        (
            get_factored,
            {},
            "'get_factored' takes neither prompts nor completions, so it is a factory: missing .* 'limit'",
        ),
        (len, {"x": 1}, "'x' is not a setting of 'len'"),
        (lambda limit: limit, {"limit": 3}, "returned a int, no function"),
    ],
)
def test_what_is_no_reward_function_is_told(function, arguments, message):
    with pytest.raises(InputError, match=message):
        from_trl(function, **arguments)


def needy(completions, gold):
    return [1.0] * len(completions)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (short, r"returned 1 values for 2 completions"),
        (number, r"It must return a list with one number for each completion"),
        (needy, r"asks for `gold`, and there is no such column. .* from_trl\(f, columns=.'gold': ...."),
    ],
)
def test_a_function_that_fails_is_named(function, message, make_batch):
    with pytest.raises(RunError, match=message):
        from_trl(function).score(make_batch(["x", "y"]))


# There and back

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
ROWS = st.lists(
    st.tuples(TEXTS, st.lists(st.integers(0, 99), max_size=5), st.none() | st.integers(-5, 5) | st.floats(-5, 5)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(rows=ROWS, chat=st.booleans(), extra=st.booleans())
def test_a_function_that_went_through_ours_is_the_same_to_trl(rows, chat, extra):
    """to_trl(from_trl(f)) == f, for whatever it is given: the columns as they are, none lost and none renamed."""

    def f(prompts, completions, completion_ids, target, trainer_state, log_metric, **kwargs):
        assert "target" not in kwargs
        log_metric("seen", float(trainer_state.global_step))
        told = repr((prompts, completions, completion_ids, sorted(kwargs)))
        return [None if t is None else float(t) + len(told) for t in target]

    texts = [[{"role": "assistant", "content": text}] if chat else text for text, _, _ in rows]
    columns = {"target": [t for _, _, t in rows]} | ({"answer": [len(rows)] * len(rows)} if extra else {})
    prompts = [[{"role": "user", "content": "q"}] if chat else "q"] * len(rows)
    alone, through = Trainer(), Trainer()
    expected = alone.call(f, prompts, texts, [ids for _, ids, _ in rows], **columns)
    found = through.call(to_trl(from_trl(f)), prompts, texts, [ids for _, ids, _ in rows], **columns)
    assert found == [None if value is None else float(torch.tensor(value)) for value in expected]
    assert through.metrics["seen"] == alone.metrics["seen"]


def test_a_reward_that_went_through_trl_is_itself():
    reward = as_reward({"think": ThinkFormat()})
    assert from_trl(to_trl(reward)) == reward


def test_a_reward_function_survives_the_journey_to_another_process(tmp_path):
    """TRL's workers get reward functions pickled, so every part of one must come back to life elsewhere."""
    (tmp_path / "users_own.py").write_text("def twice(completions, **kwargs):\n    return [2.0 for _ in completions]\n")
    sys.path.insert(0, str(tmp_path))
    try:
        from users_own import twice

        reward = Sum(
            {
                "correct": Verifier(),
                "overlong": OverlongPenalty(l_max=4, buffer=2),
                "mine": as_reward(twice).parts["twice"],
                "again": from_trl(functools.partial(twice)),
            },
            weights={"mine": 0.25, "again": 0.0},
        )
        function = to_trl(reward, "four", task=TASK, tokenizer=TOKENIZER)
        (tmp_path / "reward.pickle").write_bytes(pickle.dumps(function))
    finally:
        sys.path.remove(str(tmp_path))
    code = f"""
import pickle, sys
sys.path.insert(0, {str(tmp_path)!r})
f = pickle.load(open({str(tmp_path / "reward.pickle")!r}, "rb"))
print(f.__name__, f(prompts=["1+1="] * 2, completions=["2", "3"], completion_ids=[[5], [5] * 3], answer=["2", "2"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "four [1.5, 0.0]"  # 1 + 0 + 0.5; and 0 - (3 - 2) / 2 + 0.5
