"""Rewards called as OpenRLHF calls reward functions, without OpenRLHF."""

import asyncio
import pickle

import pytest
import torch

from reckon.errors import InputError, RunError
from reckon.models.tiny import make_tokenizer
from reckon.rewards import Format, KeywordReward, Length, Sum, ThinkFormat, Verifier
from reckon.rewards.adapters import from_openrlhf, rows_of, to_openrlhf
from reckon.tasks import ChainArithmetic
from reckon.types import End, Problem, Stream

TOKENIZER = make_tokenizer()  # its end token is `<end>`
TASK = ChainArithmetic(operations=4, train=20, dev=5, test=5)


def execute(reward_func, prompt, response, label):
    """What its agent does with one response: lists of length 1, in a thread, and tensors made of what comes back."""

    async def ask():
        return await asyncio.to_thread(reward_func, [prompt + response], [prompt], [label])

    info = asyncio.run(ask())
    assert set(info) == {"rewards", "scores", "extra_logs"}
    reward, score = torch.tensor([info["rewards"]]), torch.tensor([info["scores"]])
    logs = {key: value.flatten()[0].item() for key, value in info["extra_logs"].items()}
    return reward.item(), score.item(), logs


def test_a_combination_scores_one_response():
    row = rows_of(TASK, "train", 1, layout="openrlhf")[0]
    right = TASK.solution(TASK.problems("train")[0])
    reward = Sum({"correct": Verifier(), "plus": KeywordReward(words=["plus"], cap=2)}, weights={"plus": 2})
    function = to_openrlhf(reward, task=TASK, tokenizer=TOKENIZER)
    assert function.__name__ == "reward_func"
    assert execute(function, row["input"], right + "<end>", row["label"]) == (1, 1, {"correct": 1, "plus": 0})
    # wrong, and half of two keywords: 2 * 0.5 * 1/2; the score stays the verdict
    assert execute(function, row["input"], "plus<end>", row["label"]) == (0.5, 0, {"correct": 0, "plus": 0.5})


def test_an_end_token_is_taken_off_and_tells_that_a_response_ended():
    function = to_openrlhf({"format": Format()}, tokenizer=TOKENIZER)
    assert execute(function, "q", r"\boxed{1}<end>", None)[0] == 0.5
    assert execute(function, "q", r"\boxed{1}", None)[0] == 0
    length = to_openrlhf({"length": Length(l_max=4)}, tokenizer=TOKENIZER)
    assert execute(length, "q", "a<end>", None)[0] == 1  # 2 tokens of 4: the peak
    assert execute(length, "q", "ab", None)[0] == 1  # cut off: no end token


def test_without_a_tokenizer_special_tokens_stay_in_the_text():
    def mine(completions):
        return [float(len(text)) for text in completions]

    assert execute(to_openrlhf(mine), "q", "ab<end>", None)[0] == 7
    with pytest.raises(InputError, match="'format' reads why a response ended, and OpenRLHF hands over none"):
        execute(to_openrlhf({"format": Format()}), "q", "ab", None)


def test_a_query_that_decoding_changed_is_cut_at_a_mark():
    marked = to_openrlhf(ThinkFormat(), response_start="<assistant>")
    assert marked(["q <assistant><think>a</think>"], ["q<assistant>"], [None])["rewards"].tolist() == [0.5]
    with pytest.raises(InputError, match=r"a query does not begin with its prompt 'q<assistant>', .* response_start="):
        to_openrlhf(ThinkFormat())(["q <assistant>x"], ["q<assistant>"], [None])


def test_scores_are_a_chosen_stream_within_0_and_1():
    reward = {"think": ThinkFormat(weight=1), "sign": lambda completions: [-1.0] * len(completions)}
    assert execute(to_openrlhf(reward, scores="think"), "q", "<think></think>", None)[:2] == (0, 1)
    with pytest.raises(
        RunError, match=r"'sign' gave \[-1.0\] as score; OpenRLHF filters prompts by scores in \[0, 1\]"
    ):
        to_openrlhf(reward, scores="sign")(["qx"], ["q"], [None])
    with pytest.raises(InputError, match="`scores` names 'thin', which is no stream here"):
        to_openrlhf(reward, scores="thin")
    assert execute(to_openrlhf(reward), "q", "x", None)[:2] == (-1, -1)


class ZScore:
    group_level = True

    def score(self, batch):
        return {"z": Stream(values=torch.zeros(len(batch.rollouts.text)))}


def test_what_openrlhf_cannot_have_is_refused():
    with pytest.raises(InputError, match=r"'z_score' is a ZScore, .* OpenRLHF hands over one response at a time"):
        to_openrlhf(ZScore())
    with pytest.raises(InputError, match="'verifier' is a Verifier and reads verdicts, and OpenRLHF"):
        to_openrlhf(Verifier())
    with pytest.raises(InputError, match=r"called with \['speed'\], which nothing would read"):
        to_openrlhf(ThinkFormat())(["qx"], ["q"], [None], speed=1)
    with pytest.raises(RunError, match="OpenRLHF cannot leave a response out"):
        to_openrlhf(Verifier(), task=TASK)(["qx"], ["q"], [None])
    counted = to_openrlhf(Verifier(), task=TASK, unknown=0.0)(["qx"], ["q"], [None])
    assert counted["rewards"].tolist() == counted["scores"].tolist() == [0]


def test_it_can_be_pickled():
    function = pickle.loads(pickle.dumps(to_openrlhf(ThinkFormat(), tokenizer=TOKENIZER)))
    assert function(["q<think></think><end>"], ["q"], ["1"])["rewards"].tolist() == [0.5]


# OpenRLHF's functions as rewards


def test_as_many_prompts_as_queries():
    with pytest.raises(InputError, match="called with 2 queries, but 1 prompts"):
        to_openrlhf(lambda completions: [0.0] * len(completions))(["a b", "a c"], ["a "], [None, None])


def theirs(queries, prompts, labels, **kwargs):
    assert len(queries) == 1
    right = torch.tensor([float(queries[0] == f"{prompts[0]}{labels[0]}<end>")])
    return {"rewards": 2 * right - 1, "scores": right, "extra_logs": {"length": torch.tensor([len(queries[0])])}}


def test_a_function_of_openrlhfs_judges_ours(make_batch):
    problems = [Problem(id="a", prompt="q", answer="4")]
    batch = make_batch(["4", "4"], ends=[End.EOS, End.LENGTH], problems=problems)
    streams = from_openrlhf(theirs, tokenizer=TOKENIZER).score(batch)
    assert streams["theirs"].values.tolist() == [1, -1]  # the second was cut off, so it lacks its end token
    assert streams["scores"].values.tolist() == [1, 0]
    assert streams["length"].values.tolist() == [7, 2]
    assert [stream.train for stream in streams.values()] == [True, False, False]


def test_there_and_back(make_batch):
    reward = {"think": ThinkFormat()}
    batch = make_batch(["<think></think>", "x"])
    assert from_openrlhf(to_openrlhf(reward)).score(batch)["reward_func"].values.tolist() == [0.5, 0]
    function = to_openrlhf(from_openrlhf(theirs, tokenizer=TOKENIZER), tokenizer=TOKENIZER)
    assert execute(function, "q", "4<end>", "4")[0] == theirs(["q4<end>"], ["q"], ["4"])["rewards"].item()


def test_what_is_wrong_is_told(make_batch):
    with pytest.raises(InputError, match="'<lambda>' has no argument 'prompts' and no 'labels'"):
        from_openrlhf(lambda queries: {})
    with pytest.raises(InputError, match="a int is no reward function"):
        from_openrlhf(3)
    with pytest.raises(RunError, match="must return a mapping with `rewards`"):
        from_openrlhf(lambda queries, prompts, labels: 1.0).score(make_batch(["x"]))
    with pytest.raises(RunError, match="2 values came back for one response"):
        from_openrlhf(lambda queries, prompts, labels: {"rewards": [1, 2]}).score(make_batch(["x"]))
    chat = [Problem(id="c", prompt=({"role": "user", "content": "Hi"},))]
    with pytest.raises(RunError, match="is a chat, and OpenRLHF's functions get text"):
        from_openrlhf(theirs).score(make_batch(["x"], problems=chat))
