"""Batches: sampled, checked, kept and filled up, and what that cost."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from letters import NAN, RNG, Answers, Task, gather, make, verify
from sampler_worlds import ids

from reckon.errors import InputError, RunError
from reckon.samplers import All, DropEqual, Refill, Uniform, collect, collect_metrics, concatenate
from reckon.types import Rng, Use, Verdict


def test_concatenate_pads_and_keeps_groups_apart():
    one, two = make([["ab", "a"], ["b", "b"]], width=2), make([["abcd", "a"]], width=4, end=[2, 0])
    both = concatenate([one, two])
    assert both.seq.group.tolist() == [0, 0, 1, 1, 2, 2]
    assert both.seq.mask.tolist()[0] == [True, True, False, False]
    assert both.seq.tokens.tolist()[0] == [1, 1, 0, 0]
    assert both.seq.tokens.tolist()[4] == [1, 1, 1, 1]
    assert both.logprobs.shape == (6, 4)
    assert both.end.tolist() == [0, 0, 0, 0, 2, 0]
    assert both.text == ("ab", "a", "b", "b", "abcd", "a")
    assert both.pieces[4] == ("a", "b", "c", "d")
    assert ids(both.problems) == ["p0", "p1", "p0"]
    assert [prompt.item() for prompt in both.seq.prompts] == [0, 1, 0]
    back = both.take(torch.tensor([0, 1, 2, 3]))
    assert (back.text, back.problems) == (one.text, one.problems)


def test_one_truncated_part_makes_the_whole_truncated():
    plain, cut = make([["a"]]), make([["a"]])
    object.__setattr__(cut, "truncated", True)
    assert concatenate([plain, cut]).truncated
    assert not concatenate([plain, plain]).truncated


def test_nothing_cannot_be_concatenated():
    with pytest.raises(ValueError, match="no rollouts"):
        concatenate([])


def test_a_batch_has_the_kept_groups_and_seen_has_everything():
    batch = gather(["r", "ww"], ["r", "r"], ["u", "w"], ["rrr", "w"], n=4)
    assert batch.rollouts.text == ("r", "ww", "rrr", "w")
    assert batch.seq.group.tolist() == [0, 0, 1, 1]
    assert batch.outcome.tolist() == [1, 0, 1, 0]
    assert [verdict.answer for verdict in batch.verdicts] == ["r", "ww", "rrr", "w"]
    assert batch.train.tolist() == [True] * 4
    assert batch.step == 3
    seen = batch.seen
    assert seen.lengths.tolist() == [1, 2, 1, 1, 1, 1, 3, 1]
    assert seen.outcome.isnan().tolist() == [False] * 4 + [True] + [False] * 3
    assert (seen.rounds, seen.wanted, seen.kept) == (1, 4, 2)
    assert len(seen.problems) == 8
    assert seen.problems[0] == seen.problems[1] == batch.rollouts.problems[0]


def test_a_batch_names_the_random_numbers_of_its_step():
    batch = gather(["rr", "w"], ["w", "r"])
    assert batch.rng == batch.take(torch.tensor([1, 2])).rng == RNG


def test_rounds_follow_until_there_are_enough_and_the_surplus_is_cut():
    policy = Answers(["r", "w"], ["r", "r"], ["w", "rr"], ["r", "www"], ["never", "asked"])
    batch = collect(
        Uniform(Task()), policy, verify, DropEqual(), 2, 2, RNG, step=1, refill=Refill(rounds=5, on_short="error")
    )
    assert batch.rollouts.text == ("r", "w", "w", "rr")  # the first two kept, in the order drawn
    assert (batch.seen.rounds, batch.seen.kept) == (2, 3)
    assert len(batch.seen.problems) == 8
    assert policy.keys == [(*RNG.key, "sample", 0), (*RNG.key, "sample", 1)]


def test_on_short_short_goes_on_with_fewer():
    assert gather(["r", "w"], ["r", "r"]).rollouts.text == ("r", "w")


def test_on_short_fill_takes_rejected_groups_as_they_were_sampled():
    refill = Refill(on_short="fill")
    batch = gather(["w", "w"], ["r", "w"], ["r", "r"], n=3, refill=refill)
    assert batch.rollouts.text == ("w", "w", "r", "w", "r", "r")
    assert batch.train.all()
    assert batch.seen.kept == 1
    two_rounds = Refill(rounds=2, on_short="fill")
    batch = gather(["w", "w"], ["r", "r"], ["r", "w"], ["u", "u"], refill=two_rounds)
    assert batch.rollouts.text == ("w", "w", "r", "w")  # the earliest of the rejected


def test_on_short_repeat_takes_kept_groups_again():
    refill = Refill(on_short="repeat")
    batch = gather(["r", "r"], ["rr", "w"], ["w", "w"], n=3, refill=refill)
    assert batch.rollouts.text == ("rr", "w") * 3
    assert batch.seq.group.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.outcome.tolist() == [1, 0] * 3
    assert [verdict.answer for verdict in batch.verdicts] == ["rr", "w"] * 3
    assert batch.train.all()
    assert (batch.seen.kept, len(batch.seen.problems)) == (1, 6)  # a repeated response was generated once
    assert gather(["r", "r"], ["w", "w"], refill=refill).rollouts.text == (
        "r",
        "r",
        "w",
        "w",
    )  # none to repeat


def test_repeated_groups_are_as_even_as_can_be_and_chosen_by_chance():
    kept = [["r", "w" * (i + 1)] for i in range(3)]
    groups = [*kept, *[["r", "r"]] * 5]
    chosen = set()
    for seed in range(30):
        policy = Answers(*groups)
        refill = Refill(on_short="repeat")
        batch = collect(Uniform(Task()), policy, verify, DropEqual(), 8, 2, Rng((seed,)), step=0, refill=refill)
        wrong = batch.rollouts.text[1::2]
        assert len(wrong) == 8
        assert sorted(map(wrong.count, ("w", "ww", "www"))) == [2, 3, 3]
        chosen.add(min("w", "ww", "www", key=wrong.count))
    assert chosen == {"w", "ww", "www"}


def test_on_short_error_says_how_many_of_how_many():
    with pytest.raises(
        RunError, match=r"DropEqual kept 1 of the 4 groups drawn, and 2 were wanted .*rounds 2, on_short err"
    ):
        gather(["r", "w"], ["r", "r"], ["r", "r"], ["w", "w"], refill=Refill(rounds=2, on_short="error"))


def test_exactly_enough_is_enough():
    refill = Refill(on_short="error")
    assert gather(["r", "w"], ["w", "r"], refill=refill).rollouts.text == ("r", "w", "w", "r")


def test_one_answer_to_each_problem_will_do():
    assert gather(["r"], ["w"], keep=All()).rollouts.text == ("r", "w")


@pytest.mark.parametrize(("on_short", "trains"), [("short", False), ("repeat", False), ("fill", True)])
def test_where_nothing_is_kept_the_batch_is_what_was_rejected(on_short, trains):
    batch = gather(["r", "r"], ["w", "w"], refill=Refill(on_short=on_short))
    assert batch.rollouts.text == ("r", "r", "w", "w")
    assert batch.train.tolist() == [trains] * 4
    assert batch.seen.kept == 0


def test_nothing_kept_may_be_an_error():
    with pytest.raises(RunError, match=r"DropEqual kept 0 of the 2 groups drawn.*set `on_short` to fill"):
        gather(["r", "r"], ["w", "w"], refill=Refill(on_short="error"))


def test_context_stays_for_the_baseline_and_a_group_of_it_alone_goes():
    def rule(rollouts, outcome, rng):
        assert rng.key == (*RNG.key, "keep", 0)
        return torch.tensor([Use.TRAIN, Use.CONTEXT, Use.DROP, Use.CONTEXT, Use.CONTEXT, Use.DROP])

    batch = gather(["r", "w", "u"], ["r", "rr", "w"], keep=rule)
    assert batch.rollouts.text == ("r", "w")
    assert batch.train.tolist() == [True, False]


def test_a_problem_drawn_twice_is_two_groups():
    batch = gather(["r", "w"], ["w", "w"], keep=All(), size=1)
    assert batch.seq.group.tolist() == [0, 0, 1, 1]
    assert ids(batch.rollouts.problems) == ["train-0", "train-0"]


@given(
    st.lists(st.lists(st.sampled_from("rwu"), min_size=3, max_size=3), min_size=12, max_size=12),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_counts_add_up_whatever_comes(groups, n, rounds):
    batch = gather(*groups, n=n, refill=Refill(rounds=rounds, on_short="fill"))
    seen = batch.seen
    drawn = groups[: n * seen.rounds]
    useful = [{"r", "w"} <= set(group) for group in drawn]
    assert seen.kept == sum(useful)
    assert len(seen.problems) == 3 * len(drawn)
    assert len(batch.rollouts.problems) == n
    assert seen.rounds == rounds or seen.kept >= n
    assert sum(useful[: n * (seen.rounds - 1)]) < n  # no round too many
    in_batch = [{"r", "w"} <= set(batch.rollouts.text[3 * g : 3 * g + 3]) for g in range(n)]
    assert sum(in_batch) == min(n, seen.kept)


def test_two_halves_of_a_run_are_the_whole_run():
    def run(sampler, steps):
        drawn = []
        for step in steps:
            policy = Answers(*[["r", "w"], ["r", "r"], ["w", "w"], ["w", "r"]])
            rng = Rng((9, step))
            batch = collect(sampler, policy, verify, DropEqual(), 2, 2, rng, step=step, refill=Refill(rounds=2))
            drawn += ids(batch.seen.problems)
        return drawn

    whole, first, second = Uniform(Task(7)), Uniform(Task(7)), Uniform(Task(7))
    everything = run(whole, range(6))
    half = run(first, range(3))
    second.load_state_dict(first.state_dict())
    assert half + run(second, range(3, 6)) == everything


class Bad:
    def __init__(self, n):
        self.n = n

    def sample(self, problems, k, rng, prefixes=None):
        return make([["r"] * self.n])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 0}, InputError, "a batch of 0 problems with 2 answers"),
        ({"k": 0}, InputError, "a batch of 1 problems with 0 answers"),
        ({"policy": Bad(3)}, ValueError, "gave 3 responses to 1 problems with 2 each"),
        ({"verify": lambda rollouts: ()}, ValueError, "gave 0 verdicts on 2 responses"),
        (
            {"verify": lambda r: [Verdict(outcome=v, answer=None, reason="right") for v in (1.0, 2.0)]},
            RunError,
            "the checker gave 2.0 for a response to problem 'p0'",
        ),
        (
            {"verify": lambda r: [Verdict(outcome=NAN, answer=None, reason="right")] * 2},
            RunError,
            "the checker gave nan .* or is None where it is unknown",
        ),
        ({"keep": lambda *_: torch.ones(3)}, ValueError, r"decisions of shape \(3,\) for 2 responses"),
        ({"keep": lambda *_: [True] * 2}, InputError, r"gave a list for 2 responses\. It must give a tensor of int64"),
    ],
)
def test_collect_refuses(change, error, message):
    given_ = {"sampler": Uniform(Task()), "policy": Bad(2), "verify": verify, "keep": All(), "n": 1, "k": 2} | change
    with pytest.raises(error, match=message):
        collect(**given_, rng=RNG, step=0)


def test_a_sampler_with_nothing_left_ends_the_run():
    class Dry:
        def draw(self, n, rng):
            assert rng.key == (*RNG.key, "draw", 0)
            return []

    with pytest.raises(RunError, match="gave no problem when 2 were asked for"):
        collect(Dry(), Answers(), verify, All(), 2, 2, RNG, step=0)


@pytest.mark.parametrize(
    ("settings", "message"), [({"rounds": 0}, "`rounds` is 0"), ({"on_short": "stop"}, "short, fill, repeat or error")]
)
def test_refill_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        Refill(**settings)


def test_collect_metrics_count_the_dropped_too():
    metrics = collect_metrics(gather(["rrr", "w"], ["r", "r"], ["u", "w"], ["hh", "u"], n=4).seen)
    assert metrics == {
        "tokens/generated": 11,  # 3 + 1 + 1 + 1 + 1 + 1 + 2 + 1
        "rollouts/generated": 8,
        "rollouts/wasted": 6,  # only the first group has two outcomes that are known and differ
        "outcome/mean": 3.5 / 6,  # 1 0 1 1 ? 0 .5 ?
        "outcome/unknown": 2 / 8,
        "length/mean": 11 / 8,
        "length/truncated": 0,
        "keep/rounds": 1,
        "keep/share": 1 / 4,
    }


def test_the_share_kept_is_of_all_rounds():
    metrics = collect_metrics(gather(["r", "w"], ["r", "r"], ["w", "w"], ["r", "r"], refill=Refill(rounds=2)).seen)
    assert metrics["keep/rounds"] == 2
    assert metrics["keep/share"] == 1 / 4
    assert (metrics["rollouts/generated"], metrics["rollouts/wasted"]) == (8, 6)


def test_groups_kept_beyond_the_number_wanted_are_wasted_too():
    seen = gather(["r", "w"], ["r", "r"], ["w", "r"], ["r", "w"], refill=Refill(rounds=2)).seen
    assert seen.kept == 3
    assert collect_metrics(seen)["rollouts/wasted"] == 4


def test_collect_metrics_without_any_verdict():
    metrics = collect_metrics(gather(["u", "u"], ["u", "u"], keep=All()).seen)
    assert math.isnan(metrics["outcome/mean"])
    assert metrics["outcome/unknown"] == 1
