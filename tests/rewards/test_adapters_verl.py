"""Rewards called as verl calls score functions, without verl."""

import asyncio
import inspect
import math
import pickle
import subprocess
import sys

import pytest
import torch

from reckon.errors import InputError, RunError
from reckon.models.tiny import make_tokenizer
from reckon.rewards import Containment, Format, Gate, KeywordReward, Length, StrictLayout, Sum, ThinkFormat, Verifier
from reckon.rewards.adapters import from_verl, rows_of, to_verl
from reckon.tasks import ChainArithmetic
from reckon.types import Problem, Stream

TOKENIZER = make_tokenizer()
TASK = ChainArithmetic(operations=4, train=20, dev=5, test=5)


def naive(compute_score, rows, texts):
    """verl's manager for one sample at a time: what it stacks must have the same keys for every sample."""
    assert not inspect.iscoroutinefunction(compute_score)
    results = [
        compute_score(
            data_source=row["data_source"],
            solution_str=text,
            ground_truth=row["reward_model"]["ground_truth"],
            extra_info={**row["extra_info"], "num_turns": None, "rollout_reward_scores": {}},
        )
        for row, text in zip(rows, texts, strict=True)
    ]
    assert len({tuple(result) for result in results}) == 1
    return results


def test_a_combination_scores_one_sample_at_a_time():
    rows = rows_of(TASK, "train", 2, layout="verl")
    right = TASK.solution(TASK.problems("train")[0])
    reward = Sum({"correct": Verifier(), "commas": KeywordReward(words=["plus"])}, weights={"commas": 2})
    results = naive(to_verl(reward, task=TASK), rows, [right, "x plus"])
    assert results[0] == {"score": 1, "correct": 1, "commas": 0}
    assert results[1] == pytest.approx({"score": 0.05, "correct": 0, "commas": 0.05})  # 2 * 0.5 * 1 / 20


def test_a_component_that_does_not_apply_keeps_its_key():
    def rare(completions):
        return [None if text == "skip" else 1.0 for text in completions]

    score = to_verl({"rare": rare, "think": ThinkFormat()})
    (got,) = naive(score, rows_of(TASK, "train", 1, layout="verl"), ["skip"])
    assert got["score"] == 0
    assert math.isnan(got["rare"])


def test_an_unknown_reward_is_an_error_unless_something_stands_in_for_it():
    def never(completions):
        return [None] * len(completions)

    with pytest.raises(RunError, match=r"verl cannot leave a response out\. Pass unknown=0\.0"):
        to_verl(never)("d", "x", "y")
    assert to_verl(never, unknown=-1.0)("d", "x", "y")["score"] == -1


def test_the_batch_manager_gets_a_list():
    score = to_verl({"correct": Verifier()}, task=TASK)
    rows = {"data_sources": ["d", "d"], "solution_strs": ["2", "3"], "ground_truths": ["2", "2"]}
    got = score(**rows, extra_infos=[{"index": 1}, None])
    assert got == [{"score": 1, "correct": 1}, {"score": 0, "correct": 0}]


class ZScore:
    group_level = True

    def score(self, batch):
        values = torch.tensor([float(len(text)) for text in batch.rollouts.text])
        means = torch.stack([values[batch.seq.group == g].mean() for g in batch.seq.group.tolist()])
        return {"z": Stream(values=values - means)}


def test_groups_are_told_by_a_key_of_the_extra_info_wherever_their_rows_stand():
    """Rows of two prompts, mixed: a, abc of one; ab, abcd of the other. Less their means 2 and 3."""
    score = to_verl({"z": ZScore(), "pong": StrictLayout()}, group="index", prompt="prompt")
    infos = [{"index": i, "prompt": f"p{i}"} for i in (7, 3, 7, 3)]
    got = score(solution_strs=["a", "ab", "abc", "abcd"], extra_infos=infos, ground_truths=["1"] * 4)
    assert [row["score"] for row in got] == [-1, -1, 1, 1]
    with pytest.raises(InputError, match=r"'z' is a ZScore, .* Use the manager `batch` and pass group="):
        to_verl({"z": ZScore()})
    with pytest.raises(InputError, match=r"`extra_info` has no 'index'; it has \['prompt'\]"):
        score(solution_strs=["a"], extra_infos=[{"prompt": "p"}])


def test_a_tokenizer_gives_lengths():
    """2 characters and the end token of 6: x = 0.5, the peak."""
    assert to_verl(Length(l_max=6), tokenizer=TOKENIZER)("d", "ab", "y")["score"] == pytest.approx(1.0)


def test_the_prompt_is_read_from_the_extra_info():
    def echo(prompts, completions):
        return [float(p == c) for p, c in zip(prompts, completions, strict=True)]

    assert to_verl(echo, prompt="question")("d", "q", None, {"question": "q"})["score"] == 1
    with pytest.raises(InputError, match="'echo' may read the prompt, and verl hands over none"):
        to_verl(echo)
    with pytest.raises(InputError, match=r"`extra_info` has no 'question'; it has nothing"):
        to_verl(echo, prompt="question")("d", "q")


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (Length(l_max=4), "'length' reads the tokens of a response, and verl hands over none. Give `tokenizer="),
        (Format(), "'format' reads why a response ended, .* set `require_eos` to False"),
        (Containment(), "'containment' reads reference answers, .* need `reward_model.ground_truth`"),
    ],
)
def test_what_verl_does_not_hand_over_is_named(reward, message):
    with pytest.raises(InputError, match=message):
        to_verl(reward)("d", "x")


def test_settings_that_nothing_reads_are_refused():
    score = to_verl(ThinkFormat())
    with pytest.raises(InputError, match="`reward_kwargs` has 'bonus', which nothing would read"):
        score("d", "x", "y", {}, bonus=1)
    assert score("d", "x", "y", {}, reward_router_address="http://x")["score"] == 0  # verl's own
    with pytest.raises(InputError, match="without `solution_str` and without `solution_strs`"):
        score()
    with pytest.raises(InputError, match="a component is called 'score'"):
        to_verl({"score": ThinkFormat()})
    with pytest.raises(InputError, match="'gate/condition' is a Verifier and reads verdicts, and verl"):
        to_verl({"gate": Gate(condition=Verifier(), then=ThinkFormat())})


def test_verl_finds_it_by_path_and_name(tmp_path):
    """As docs/adapters.md says to write it, imported in another process and pickled on the way, as Ray may."""
    file = tmp_path / "my_reward.py"
    file.write_text(
        "from reckon.rewards import Sum, ThinkFormat, Verifier\n"
        "from reckon.rewards.adapters import to_verl\n"
        "from reckon.tasks import ChainArithmetic\n"
        "compute_score = to_verl({'correct': Verifier(), 'think': ThinkFormat()},"
        " task=ChainArithmetic(operations=4, train=20, dev=5, test=5))\n"
    )
    code = f"""
import importlib.util, pickle
spec = importlib.util.spec_from_file_location("custom_module", {str(file)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
f = pickle.loads(pickle.dumps(getattr(module, "compute_score")))
print(f(data_source="d", solution_str="<think></think> 2", ground_truth="2", extra_info={{}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'score': 1.5, 'correct': 1.0, 'think': 0.5}"
    assert pickle.loads(pickle.dumps(to_verl(ThinkFormat())))("d", "x", "y")["score"] == 0


# verl's functions as rewards


def exact(data_source, solution_str, ground_truth, extra_info=None):
    assert data_source == "sums"
    assert extra_info["level"] == 3
    return float(solution_str == ground_truth)


def rich(data_source, solution_str, ground_truth, extra_info, bonus=0.0):
    return {"score": float(solution_str == ground_truth) + bonus, "acc": solution_str == ground_truth, "note": "x"}


async def later(data_source, solution_str, ground_truth, extra_info):
    await asyncio.sleep(0)
    return 0.5


def loops(data_source, solution_str, ground_truth, extra_info):
    return asyncio.run(later(data_source, solution_str, ground_truth, extra_info))


def many(data_sources, solution_strs, ground_truths, extra_infos):
    return [float(len(text)) for text in solution_strs]


@pytest.fixture
def batch(make_batch):
    problems = [
        Problem(id="a", prompt="q", answer="4", domain="sums", columns={"level": 3}),
        Problem(id="b", prompt="r", domain="sums"),
    ]
    return make_batch(["4", "five", "?"], group=[0, 0, 1], problems=problems)


def test_a_score_function_judges_every_response_with_a_reference(batch):
    ((name, stream),) = from_verl(exact).score(batch).items()
    assert name == "exact"
    assert stream.values.tolist()[:2] == [1, 0]
    assert stream.values[2].isnan()  # nobody knows the answer


def test_the_other_numbers_of_a_mapping_are_watched(batch):
    streams = from_verl(rich, bonus=0.5).score(batch)
    assert streams["rich"].values.tolist()[:2] == [1.5, 0.5]
    assert streams["acc"].values.tolist()[:2] == [1, 0]
    assert not streams["acc"].train
    assert set(streams) == {"rich", "acc"}


def test_async_and_batch_functions_are_called_as_verl_would(batch):
    assert from_verl(later).score(batch)["later"].values.tolist()[:2] == [0.5, 0.5]
    assert from_verl(loops).score(batch)["loops"].values.tolist()[:2] == [0.5, 0.5]
    assert from_verl(many).score(batch)["many"].values.tolist()[:2] == [1, 4]


def test_there_and_back(batch):
    score = to_verl(from_verl(rich), prompt="prompt")
    info = {"level": 3, "prompt": "q"}
    assert score("sums", "4", "4", info)["score"] == rich("sums", "4", "4", info)["score"]
    ours = to_verl(ThinkFormat())
    assert from_verl(ours).score(batch)["compute_score"].values.tolist()[:2] == [0, 0]


def no_score(data_source, solution_str, ground_truth, extra_info):
    return {"acc": 1.0}


def too_few(data_sources, solution_strs, ground_truths, extra_infos):
    return [1.0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_score, r"a mapping without `score` came back: it has \['acc'\]"),
        (too_few, "must return a list with one score for each of 2 responses"),
    ],
)
def test_what_comes_back_wrong_is_told(function, message, batch):
    with pytest.raises(RunError, match=message):
        from_verl(function).score(batch)


def test_what_is_no_score_function_is_told():
    with pytest.raises(InputError, match="a int is no score function"):
        from_verl(3)
    with pytest.raises(InputError, match="'bonsu' is not an argument of 'rich'"):
        from_verl(rich, bonsu=1)
