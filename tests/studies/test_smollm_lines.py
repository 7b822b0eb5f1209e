"""Step advantages by rule, which the study signals-on-smollm holds against those of a learned verifier."""

from itertools import pairwise

import pytest
import torch

from reckon.errors import InputError
from reckon.models import tiny
from reckon.rewards.adapters import Given, batch_of
from reckon.studies._smollm_lines import ExactSteps
from reckon.tasks import RunningSums
from reckon.types import Problem

SUM = Problem(id="sum", prompt="Add these numbers step by step: 17, 48, 20", answer="85")  # three lines, the total too


def scored(texts, prover_k=1):
    n = len(texts)
    given = Given(library="here", texts=texts, prompts=[SUM.prompt] * n, answers=[SUM.answer] * n, group=[0] * n)
    task = RunningSums()
    batch = batch_of(given, task=task, tokenizer=tiny.make_tokenizer())
    (stream,) = ExactSteps(task, line=0.75, prover_k=prover_k).score(batch).values()
    return batch, stream


def by_line(*texts):
    """What the lines of each text are worth to a prover that gets three lines in four."""
    batch, stream = scored(texts)
    assert stream.kind == "advantage"
    found = []
    for row, text in enumerate(texts):
        values = stream.values[row][batch.rollouts.seq.mask[row]].tolist()
        lines, place = [], 0
        for line in text.splitlines(keepends=True):
            (value,) = set(values[place : place + len(line)])  # one value a line
            lines.append(pytest.approx(value, abs=1e-6))
            place += len(line)
        found.append(lines)
    return found


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("17 + 48 = 65\n65 + 20 = 85\nTotal: 85", [9 / 16 - 27 / 64, 3 / 4 - 9 / 16, 1 / 4]),
        ("17 + 48 = 66\n66 + 20 = 86\nTotal: 86", [-27 / 64, 0, 0]),  # all lies in the first line
        ("17 + 48 = 65\n65 + 20 = 86\nTotal: 86", [9 / 64, -9 / 16, 0]),
        ("17 + 48 = 65\nTotal: 65", [9 / 64, -9 / 16]),
        ("17 + 48 = 65", [-27 / 64]),  # left unfinished: the verdict stands behind the last line
        ("17 + 48 = 66\n66 + 20 = 85\nTotal: 85", [-27 / 64, 0, 1]),  # errors that cancel out: so does it here
        ("Well.\n17 + 48 = 65\n65 + 20 = 85\nTotal: 85", [0, 9 / 64, 3 / 16, 1 / 4]),  # a line that says nothing
    ],
)
def test_worth_of_lines_by_hand(text, worth):
    """The prover's chance: 27/64 at first, 9/16 and 3/4 after right lines, 0 after a wrong one."""
    assert by_line(text) == [worth]


def test_rows_do_not_touch_each_other():
    texts = ["17 + 48 = 65", "17 + 48 = 65\n65 + 20 = 85\nTotal: 85", "no idea\nat all"]
    assert by_line(*texts) == [line for text in texts for line in by_line(text)]


def test_the_mean_is_0_for_a_policy_like_the_prover():
    """Lines of four, right in 0.75 of cases each, over all ways a sum can go until its first error."""
    task = RunningSums()
    prover = ExactSteps(task, line=0.75)
    right = ["17 + 48 = 65\n", "65 + 20 = 85\n", "Total: 85"]
    wrong = ["17 + 48 = 60\n", "65 + 20 = 80\n", "Total: 80"]
    for i in range(3):
        before = prover.chance(SUM, "".join(right[:i]))
        after = [prover.chance(SUM, "".join([*right[:i], line])) for line in (right[i], wrong[i])]
        assert 0.75 * (after[0] - before) + 0.25 * (after[1] - before) == pytest.approx(0)


def test_the_best_of_four_attempts_by_hand():
    """1 - (1 - x)^4 of 27/64, 9/16 and 3/4; in the mean 0.75 A - 0.25 V is below 0 at each line."""
    chances = [1 - (1 - x) ** 4 for x in (27 / 64, 9 / 16, 3 / 4)] + [1.0]
    batch, stream = scored(["17 + 48 = 65\n65 + 20 = 85\nTotal: 85"], prover_k=4)
    found = stream.values[0][batch.rollouts.seq.mask[0]].tolist()
    gains = [after - before for before, after in pairwise(chances)]
    assert [found[0], found[13], found[-2]] == pytest.approx(gains)
    assert all(0.75 * gain - 0.25 * chance < -0.1 for gain, chance in zip(gains, chances, strict=False))


@pytest.mark.parametrize("prover_k", [0, -1])
def test_a_prover_without_an_attempt(prover_k):
    with pytest.raises(InputError, match="must be 1 or more"):
        ExactSteps(RunningSums(), line=0.75, prover_k=prover_k)


@pytest.mark.parametrize("line", [0, 1, -0.5, float("nan")])
def test_a_prover_that_cannot_be(line):
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        ExactSteps(RunningSums(), line=line)


def test_an_empty_response_has_no_line():
    _, stream = scored([""])
    assert not torch.any(stream.values)
