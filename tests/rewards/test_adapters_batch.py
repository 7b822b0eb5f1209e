"""Batches from what other libraries hand over, and what cannot be read in them."""

import subprocess
import sys

import pytest
import torch

from reckon.errors import InputError
from reckon.models.tiny import make_tokenizer
from reckon.rewards import CosineLength, Format, KLReward, Length, RepetitionPenalty, Verifier
from reckon.rewards.adapters import Given, batch_of, rows_of
from reckon.rewards.adapters._unknown import Unknown
from reckon.tasks import ChainArithmetic, Largest
from reckon.types import Chat, End, Problem, Verdict

TOKENIZER = make_tokenizer()  # one token a character; the end token has id 1


class Sums:
    """A task whose problems are answered by their `answer`."""

    name = "sums"

    def problems(self, split):
        columns = {"level": 1}
        chat: Chat = ({"role": "user", "content": "2+2="},)
        return [
            Problem(id="a", prompt="1+1=", answer="2", domain="small", columns=columns),
            Problem(id="b", prompt=chat, answer="4", columns=columns),
        ]

    def check(self, problem, text):
        right = text == problem.answer
        return Verdict(outcome=float(right), answer=text, reason="right" if right else "wrong")


def given(**changes):
    rows = {"library": "TRL", "texts": ["2", "33", ""], "prompts": ["1+1=", "1+1=", "2+2="]}
    return Given(**{**rows, **changes})


def test_a_batch_has_the_rows_as_they_were_handed_over():
    batch = batch_of(
        given(
            completion_ids=[[53, 1], [54, 54, 1], [1]],
            answers=["2", "2", 4],
            columns={"id": ["x", "x", "y"], "domain": ["d", "d", None], "level": [1, 1, 2]},
            group=[0, 0, 1],
            step=7,
        ),
        task=Sums(),
        tokenizer=TOKENIZER,
    )
    assert batch.rollouts.text == ("2", "33", "")
    assert batch.rollouts.problems == (
        Problem(id="x", prompt="1+1=", answer="2", domain="d", columns={"level": 1}),
        Problem(id="y", prompt="2+2=", answer="4", columns={"level": 2}),  # a number is read as text
    )
    assert batch.seq.group.tolist() == [0, 0, 1]
    assert batch.seq.tokens.tolist() == [[53, 1, 0], [54, 54, 1], [1, 0, 0]]
    assert batch.seq.mask.sum(1).tolist() == [2, 3, 1]
    assert [len(prompt) for prompt in batch.seq.prompts] == [4, 4]
    assert batch.outcome.tolist() == [1, 0, 0]
    assert [verdict.reason for verdict in batch.verdicts] == ["right", "wrong", "wrong"]
    assert batch.step == 7
    assert batch.seen.lengths.tolist() == [2, 3, 1]
    assert batch.rollouts.end.tolist() == [End.EOS] * 3


def test_a_tokenizer_tells_what_was_cut_off_and_the_text_of_tokens():
    ids = TOKENIZER("abc")["input_ids"]
    batch = batch_of(given(texts=["abc", "abc", ""], completion_ids=[[*ids, 1], ids, []]), tokenizer=TOKENIZER)
    assert batch.rollouts.end.tolist() == [End.EOS, End.LENGTH, End.LENGTH]
    assert [list(pieces) for pieces in batch.rollouts.pieces] == [["a", "b", "c", ""], ["a", "b", "c"], []]
    assert batch.rollouts.pieces[0][1] == "b"


def test_tokens_that_are_not_handed_over_are_those_of_the_text_and_an_end_token():
    batch = batch_of(given(texts=["ab", "", "abc"], ended=[True, True, False]), tokenizer=TOKENIZER)
    assert batch.seq.mask.sum(1).tolist() == [3, 1, 3]  # the third ran into the limit


def test_without_groups_each_response_stands_alone():
    assert batch_of(given()).seq.group.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": [], "prompts": []}, "TRL handed over no responses"),
        ({"prompts": ["a"]}, "3 responses and 1 values of `prompts`"),
        ({"columns": {"level": [1]}}, "3 responses and 1 values of `level`"),
        ({"group": [0, 0, 2]}, "`group` must ascend from 0 without gaps"),
        ({"group": [1, 1, 1]}, "`group` must ascend from 0 without gaps"),
        ({"group": [0, 0, 0]}, "rows 1 and 2 are of one `group`, but their prompts differ"),
    ],
)
def test_lists_that_do_not_fit_are_told(changes, message):
    with pytest.raises(InputError, match=message):
        batch_of(given(**changes))


def test_a_chat_needs_a_chat_template():
    with pytest.raises(InputError, match="is a chat, and the tokenizer has no chat template"):
        batch_of(given(prompts=[[{"role": "user", "content": "Hi"}]] * 3), tokenizer=TOKENIZER)
    with pytest.raises(InputError, match="is empty"):
        batch_of(given(prompts=[""] * 3), tokenizer=TOKENIZER)


@pytest.mark.parametrize(
    ("reward", "field"),
    [
        (Verifier(), "outcome"),
        (CosineLength(l_max=9), "outcome"),
        (Format(), "end"),
        (Length(l_max=9), "tokens"),
    ],
)
def test_what_rests_on_the_unknown_is_marked_by_it(reward, field):
    ((_, stream),) = reward.score(batch_of(given())).items()
    assert isinstance(stream.values, Unknown)
    assert stream.values.field == field


def test_an_end_that_nobody_reads_does_not_matter():
    ((_, stream),) = Format(require_eos=False).score(batch_of(given(texts=[r"\boxed{1}", "", "2"]))).items()
    assert not isinstance(stream.values, Unknown)
    assert stream.values.tolist() == [0.5, 0, 0]


READS = "a reward reads the tokens of a response, and TRL hands over none. Give `tokenizer=`"


def test_numbers_of_the_unknown_cannot_be_read_out():
    batch = batch_of(given())
    for read in (
        lambda: bool((batch.outcome > 0).any()),
        batch.outcome[0].item,
        lambda: float(batch.outcome.sum()),
        batch.outcome.numpy,
    ):
        with pytest.raises(InputError, match=r"a reward reads verdicts, and TRL hands over none\. Give `task=`"):
            read()
    with pytest.raises(InputError, match=READS):
        RepetitionPenalty(n=1, unit="tokens").score(batch)
    with pytest.raises(InputError, match="the text of single tokens"):
        "".join(batch.rollouts.pieces[0])
    with pytest.raises(InputError, match="the tokens of a prompt"):
        torch.cat(batch.seq.prompts)
    with pytest.raises(InputError, match="log-probs of the sampler"):
        batch.rollouts.logprobs.sum().item()


def test_shapes_devices_and_parts_of_the_unknown_can_be_looked_at():
    batch = batch_of(given(group=[0, 0, 1]))
    assert batch.outcome.shape == (3,)
    assert batch.outcome.device.type == "cpu"
    part = batch.take(torch.tensor([2]))
    assert part.rollouts.text == ("",)
    assert isinstance(part.outcome, Unknown)


def test_a_model_is_not_shown_prompts_that_are_not_there():
    class Model:
        def outputs(self, seq, want=("logprobs",)):
            return torch.cat([torch.cat([prompt, seq.tokens[0]]) for prompt in seq.prompts])

    with pytest.raises(InputError, match="a reward reads the tokens of a prompt"):
        KLReward(policy=Model(), reference=Model()).score(batch_of(given()))


@pytest.mark.parametrize("layout", ["trl", "verl"])
def test_rows_carry_all_that_makes_a_problem(layout):
    rows = rows_of(Sums(), "train", layout=layout)
    if layout == "trl":
        assert rows[0] == {"prompt": "1+1=", "answer": "2", "domain": "small", "id": "a", "level": 1}
        assert rows[1]["prompt"] == [{"role": "user", "content": "2+2="}]
    else:
        assert rows[0] == {
            "data_source": "small",
            "prompt": [{"role": "user", "content": "1+1="}],
            "reward_model": {"style": "rule", "ground_truth": "2"},
            "extra_info": {"level": 1, "prompt": "1+1=", "id": "a"},
        }


def test_rows_for_openrlhf_are_text():
    assert rows_of(Sums(), "train", 1, layout="openrlhf") == [{"input": "1+1=", "label": "2"}]
    with pytest.raises(InputError, match="OpenRLHF applies the chat template to one text"):
        rows_of(Sums(), "train", layout="openrlhf")
    with pytest.raises(InputError, match="it must be one of trl, verl, openrlhf"):
        rows_of(Sums(), "train", layout="nemo")


@pytest.mark.parametrize("task", [ChainArithmetic(operations=4, train=20, dev=5, test=5), Largest(train=20)])
def test_a_problem_makes_the_journey_unharmed(task):
    """To rows and back: the worked solution still earns the full reward."""
    rows = rows_of(task, "train", 5)
    texts = [task.solution(problem) for problem in list(task.problems("train"))[:5]]
    columns = {name: [row[name] for row in rows] for name in rows[0] if name not in ("prompt", "answer")}
    made = batch_of(
        given(texts=texts, prompts=[r["prompt"] for r in rows], answers=[r["answer"] for r in rows], columns=columns),
        task=task,
    )
    assert made.rollouts.problems == tuple(list(task.problems("train"))[:5])
    assert made.outcome.tolist() == [1.0] * 5


def test_importing_the_adapters_imports_no_other_library():
    code = """
import sys, reckon.rewards.adapters
assert not {"trl", "verl", "openrlhf", "verifiers", "ray", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
