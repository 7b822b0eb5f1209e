"""The whole bench and the hack probe on made-up answers whose truth is known."""

import dataclasses
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from reckon.errors import InputError
from reckon.evaluate import (
    PROBES,
    WORDS,
    Estimate,
    bench_json,
    bench_rows,
    bench_text,
    probe,
    probe_texts,
    signal_bench,
)
from reckon.rewards import Containment, Function
from reckon.runs import Responses, Signal
from reckon.types import Problem, Rng, Verdict

RNG = Rng(("test",))


def made(prompts=60, k=8, seed=0, **more):
    """Half of the answers are right; the right ones end in their problem's answer, the wrong ones in "no"."""
    rng = np.random.default_rng(seed)
    n = prompts * k
    group = np.repeat(np.arange(prompts), k)
    right = rng.integers(0, 2, n).astype(float)
    size = rng.integers(1, 30, n)
    text = tuple("w " * size[i] + (f"\\boxed{{{group[i]}}}" if right[i] else "\\boxed{no}") for i in range(n))
    fields = {
        "source": "made",
        "problems": tuple(Problem(id=f"p{g}", prompt=f"Question {g}?", answer=str(g)) for g in range(prompts)),
        "group": group,
        "text": text,
        "outcome": right,
        "parsed": tuple(str(group[i]) if right[i] else "no" for i in range(n)),
        "end": ("eos",) * n,
        "row": np.arange(n),
    }
    responses = Responses(**{**fields, **more})
    noise = rng.normal(size=n)
    lengths = responses.lengths
    return responses.with_streams(
        {
            "good": Signal(values=right + 0.7 * noise),
            "noise": Signal(values=rng.normal(size=n)),
            "liar": Signal(values=-right + 0.7 * rng.normal(size=n)),
            "long": Signal(values=right + lengths / 15 + 0.3 * rng.normal(size=n)),
            "easy": Signal(values=rng.normal(size=n) + 0.0 * right),
            "shy": Signal(values=np.where(rng.random(n) < 0.2, np.nan, right + 0.7 * noise)),
            "outcome": Signal(values=right),
            "sure": Signal(values=np.where(right == 1, 0.99, np.where(noise > 0, 0.98, 0.01))),
        }
    )


@pytest.fixture(scope="module")
def bench():
    return signal_bench(made(), rng=RNG)


def named(bench, name):
    return next(one for one in bench.signals if one.name == name)


@pytest.mark.parametrize(
    ("name", "trust"),
    [
        ("good", "trust"), ("noise", "chance"), ("liar", "misleads"), ("long", "care"), ("shy", "care"),
        ("outcome", "verdict"), ("sure", "trust"),
    ],
)  # fmt: skip
def test_each_signal_is_trusted_as_it_was_made(bench, name, trust):
    assert named(bench, name).trust == trust


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("long", "length", "prefers longer answers"),
        ("shy", "unknown", "has no value for"),
        ("outcome", "verdict", "is the verdict itself"),
        ("sure", "scale", "its probabilities are off by"),
        ("liar", "falls", "best-of-N falls with more samples"),
    ],
)
def test_what_is_wrong_with_it_is_said(bench, name, kind, said):
    (remark,) = [remark for remark in named(bench, name).remarks if remark.kind == kind]
    assert remark.text.startswith(said)
    assert not any(remark.kind == kind for remark in named(bench, "good").remarks)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "trust"),
        ({"within": Estimate(value=0.6, low=0.5, high=0.7)}, "chance"),
        ({"within": Estimate(value=0.4, low=0.3, high=0.499)}, "misleads"),
        ({"within": Estimate(value=0.6)}, "unknown"),  # a single problem has no interval
        ({"gain": Estimate(value=0.1, low=0.0, high=0.2)}, "care"),  # no gain is not excluded
        ({"gain": Estimate(value=math.nan)}, "care"),  # nothing could be chosen
        ({"over_vote": Estimate(value=-0.1, low=-0.2, high=-0.001)}, "care"),
        ({"over_vote": Estimate(value=-0.1, low=-0.2, high=0.0)}, "trust"),  # the vote is not found to be better
        ({"over_vote": Estimate(value=math.nan)}, "trust"),  # there is no vote
        ({"unknown": 0.05}, "trust"),
        ({"unknown": 0.051}, "care"),
        ({"length": Estimate(value=0.2, low=0.1, high=0.3)}, "care"),
        ({"length": Estimate(value=0.199, low=0.1, high=0.3)}, "trust"),
        ({"is_verdict": True}, "verdict"),
    ],
)
def test_the_word_follows_the_thresholds_of_the_page(bench, change, word):
    assert dataclasses.replace(named(bench, "good"), **change).trust == word


def test_a_signal_that_a_vote_beats_is_not_called_trust():
    """Wrong answers that differ: 4 of 8 right ones win nearly every vote, and no judge as noisy as this one does."""
    base = made()
    right = base.outcome == 1
    parsed = tuple(str(g) if r else f"no {i}" for i, (g, r) in enumerate(zip(base.group, right, strict=True)))
    noisy = Signal(values=right + 2 * np.random.default_rng(1).normal(size=len(right)))
    (one,) = signal_bench(dataclasses.replace(base, parsed=parsed, streams={"noisy": noisy}), rng=RNG).signals
    assert one.within.low > 0.5
    assert one.gain.low > 0
    assert not any(remark.blind for remark in one.remarks)
    assert one.trust == "care"
    ranks, alone, vote, blind = one.reasons
    assert ranks.startswith(f"ranks {one.within.value:.0%} of right answers above wrong ones to the same prompt (95%: ")
    assert alone.startswith(f"best of 8 is better than a single answer: +{100 * one.gain.value:.1f} points (95%: ")
    lost = -100 * one.over_vote.value
    assert vote.startswith(f"best of 8 is worse than the majority vote: −{lost:.1f} points (95%: −")
    assert blind == "no blind spot was found"


def test_reasons_say_what_could_not_be_measured(bench):
    one = named(bench, "good")
    lone = dataclasses.replace(one, gain=Estimate(value=math.nan), over_vote=Estimate(value=math.nan))
    assert lone.reasons[1:3] == ("too few answers to a prompt to choose among", "no majority vote to compare with")
    even = dataclasses.replace(one, over_vote=Estimate(value=0.01, low=-0.02, high=0.04))
    assert even.reasons[2] == "best of 8 cannot be told from the majority vote: +1.0 points (95%: −2.0 to 4.0)"
    assert named(bench, "outcome").reasons == ("every value is the verdict",)
    assert named(bench, "shy").reasons[-1] == "1 blind spot"
    unscored = dataclasses.replace(one, within=Estimate(value=math.nan))
    assert unscored.reasons == ("no prompt has both a right and a wrong answer that it scored",)


def test_the_most_trusted_come_first_and_the_numbers_hang_together(bench):
    order = [list(WORDS).index(one.trust) for one in bench.signals]
    assert order == sorted(order)
    assert bench.ks == (1, 2, 4, 8)
    assert bench.rate == pytest.approx(float(made().outcome.mean()))
    for one in bench.signals:
        assert one.curve[0] == pytest.approx(bench.rate)  # the best of one sample is that sample
        assert all(best <= top + 1e-9 for best, top in zip(one.curve, bench.oracle, strict=True))
        assert one.gain.value == pytest.approx(one.curve[-1] - bench.rate)
        assert one.within.low <= one.within.value <= one.within.high
    assert named(bench, "outcome").curve == pytest.approx(bench.oracle)
    assert bench.names[0] == "verdict"
    place = bench.names.index("outcome")
    assert bench.pooled[0][place] == pytest.approx(1)
    assert bench.within[0][place] == pytest.approx(1)
    assert bench.within[0][bench.names.index("liar")] < -0.4
    matrix = np.array(bench.within)
    assert np.allclose(matrix, matrix.T)


def test_the_same_numbers_come_out_again_and_of_each_signal_alone(bench):
    assert bench_json(signal_bench(made(), rng=RNG)) == bench_json(bench)
    alone = signal_bench(made(), rng=RNG, signals=["long"])
    (one,) = bench_json(alone)["signals"]
    assert one in bench_json(bench)["signals"]


def test_a_monotone_transform_changes_rankings_not_at_all(bench):
    responses = made()
    values = responses.streams["good"].values
    turned = responses.with_streams({"good": Signal(values=np.exp(3 * values))})
    one, other = named(bench, "good"), named(signal_bench(turned, rng=RNG, signals=["good"]), "good")
    assert one.within == other.within
    assert one.curve == other.curve
    assert one.length == other.length
    assert one.calibration.recalibrated_error == pytest.approx(other.calibration.recalibrated_error, abs=0.02)


def test_knowing_easy_prompts_is_not_knowing_right_answers():
    rng = np.random.default_rng(3)
    ease = rng.random(80)
    right = (rng.random((80, 6)) < ease[:, None]).astype(float).reshape(-1)
    responses = made(80, 6, outcome=right)
    easy = Signal(values=np.repeat(ease, 6) + 0.01 * rng.normal(size=480))
    one = signal_bench(responses.with_streams({"ease": easy}), rng=RNG, signals=["ease"]).signals[0]
    assert one.pooled > 0.75
    assert one.within.low < 0.5 < one.within.high
    assert [remark.kind for remark in one.remarks] == ["easy"]


def test_paying_for_form_is_seen_among_wrong_answers_only():
    responses = made()
    rng = np.random.default_rng(5)
    formed = rng.random(480) < 0.5
    wrong = responses.right == 0
    parsed = tuple(None if wrong[i] and not formed[i] else p for i, p in enumerate(responses.parsed))
    shaped = Signal(values=responses.right + np.where(formed, 1.0, 0.0) + 0.3 * rng.normal(size=480))
    one = signal_bench(made(parsed=parsed).with_streams({"form": shaped}), rng=RNG, signals=["form"]).signals[0]
    assert one.format.low > 0.9
    assert "format" in {remark.kind for remark in one.remarks}


def test_unknown_verdicts_leave_everything_and_are_counted():
    responses = made()
    outcome = responses.outcome.copy()
    outcome[::8] = math.nan
    bench = signal_bench(made(outcome=outcome), rng=RNG, signals=["good"])
    assert bench.unknown == pytest.approx(1 / 8)
    assert bench.n == 7
    assert bench.curve_prompts == 60


def test_what_cannot_be_measured_is_said():
    responses = made(2, 2)
    with pytest.raises(InputError, match=r"made: there is no signal 'nope'. Signals: good, noise"):
        signal_bench(responses, rng=RNG, signals=["nope"])
    bare = Responses(**{**vars(responses), "streams": {}})
    with pytest.raises(InputError, match=r"made: there is no signal. Add a column of numbers"):
        signal_bench(bare, rng=RNG)
    with pytest.raises(InputError, match="made: no response has a verdict, so no signal can be held against one"):
        signal_bench(made(2, 2, outcome=np.full(4, math.nan)), rng=RNG)


def test_one_answer_to_each_prompt_cannot_rank_and_is_no_reason_to_fail():
    bench = signal_bench(made(5, 1), rng=RNG)
    assert {one.trust for one in bench.signals} == {"unknown", "verdict"}
    assert (bench.ks, bench.mixed) == ((1,), 0)
    assert "Cannot tell" in bench_text(bench)
    json.dumps(bench_json(bench), allow_nan=False)


def test_the_worst_disagreements_are_the_widest(bench):
    one = named(bench, "liar")
    assert len(one.worst) == 5
    gaps = [case.wrong_score - case.right_score for case in one.worst]
    assert gaps == sorted(gaps, reverse=True)
    assert all(case.right.endswith(f"\\boxed{{{case.reference}}}") for case in one.worst)
    assert all(case.wrong.endswith("\\boxed{no}") for case in one.worst)
    assert not named(bench, "outcome").worst


def test_a_table_for_terminals_and_one_for_machines(bench):
    head, rows = bench_rows(bench)
    assert all(len(row) == len(head) for row in rows)
    text = bench_text(bench)
    assert text.startswith("made: 480 responses to 60 prompts")
    assert "liar: Misleads." in text
    found = json.loads(json.dumps(bench_json(bench), allow_nan=False))
    assert found["signals"][0]["trust"] == "trust"
    assert {one["name"] for one in found["signals"]} == set(bench.names[1:])


def test_the_room_stays_light():
    code = "import sys, reckon.evaluate, reckon.runs; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# The hack probe


def test_probes_are_built_for_a_problem():
    problem = Problem(id="p", prompt="What is 1 + 1?", answer="2")
    found = probe_texts(problem, ["So it is 2.", "2"], "7", 400)
    assert set(found) == set(PROBES)
    assert found["empty"] == ""
    assert found["question"] == problem.prompt
    assert found["constant"] == "<answer>\\boxed{7}</answer>"
    assert set(found["repeated"].split("\n")) == {"2"}
    assert len(found["repeated"]) >= 400
    assert len(found["long"]) >= 400
    assert "2" not in found["long"] + found["format"] + found["reference"]
    assert {"repeated", "constant"} & set(probe_texts(problem, [], "2", 400)) == set()


def length(completions, **_):
    return [float(len(text)) for text in completions]


def fair(completions, answer, **_):
    return [float(text.endswith(f"\\boxed{{{a}}}")) for text, a in zip(completions, answer, strict=True)]


def credulous(completions, **_):
    return [2.0 if "reference" in text else float("\\boxed{no}" not in text) for text in completions]


@pytest.fixture(scope="module")
def probed():
    judges = {"length": Function(length), "fair": Function(fair), "credulous": Function(credulous)}
    return probe(made(), judges, rng=RNG, problems=20)


def flags(results):
    return {one.probe: one.flag for one in results if one.flag is not None}


def test_a_judge_of_length_pays_for_length(probed):
    assert flags(probed["length"]) == dict.fromkeys(("format", "repeated", "long", "reference"), "right")
    (long,) = [one for one in probed["length"] if one.probe == "long"]
    assert (long.over_right, long.over_wrong, long.right, long.wrong) == (1, 1, 20, 20)
    assert long.words == "pays “very long, no answer” more than a right answer (100% of problems)"


def test_a_fair_judge_pays_nothing(probed):
    assert flags(probed["fair"]) == {}
    assert probed["fair"][0].probe == "wrong"
    assert probed["fair"][0].over_right == 0


def test_a_judge_may_pay_more_than_a_wrong_answer_and_less_than_a_right_one(probed):
    found = flags(probed["credulous"])
    assert found.pop("reference") == "right"
    # 1 for everything that does not say "no": as much as a right answer, and more than a wrong one.
    assert found == dict.fromkeys(("empty", "format", "question", "long", "constant"), "wrong")


def test_flagged_probes_are_blind_spots_of_the_bench(probed):
    responses = made().with_streams({"length": Signal(values=made().lengths.astype(float) + 40 * made().outcome)})
    one = signal_bench(responses, rng=RNG, signals=["length"], probes=probed).signals[0]
    assert one.trust == "care"
    assert [remark.kind for remark in one.remarks if remark.blind][:3] == ["probe"] * 3


def test_probes_are_scored_beside_columns_of_the_same_name(probed):
    named_alike = made().with_streams({"length": Signal(values=np.zeros(480))})
    found = probe(named_alike, {"length": Function(length)}, rng=RNG, problems=20)
    assert flags(found["length"]) == flags(probed["length"])


def test_a_judge_without_a_value_for_a_probe_is_counted():
    def picky(completions, **_):
        return [None if not text else 0.0 for text in completions]

    found = probe(made(), {"picky": Function(picky)}, rng=RNG, problems=6)["picky"]
    empty = next(one for one in found if one.probe == "empty")
    assert (empty.unknown, empty.right, empty.flag) == (6, 0, None)
    assert math.isnan(empty.over_right)


@dataclass
class Task:
    name: str = "task"

    def problems(self, split):
        return []

    def check(self, problem, text):
        return Verdict(outcome=0.0 if text == "" else None, answer=None, reason="wrong")


def test_a_task_gives_probes_their_verdicts():
    seen = []

    @dataclass
    class Watch:
        def score(self, batch):
            seen.extend(zip(batch.rollouts.text, batch.outcome.tolist(), strict=True))
            return Containment().score(batch)

    probe(made(), {"watch": Watch()}, rng=RNG, problems=2, task=Task())
    verdicts = dict(seen)
    assert verdicts[""] == 0
    assert math.isnan(verdicts["Question 0?"]) if "Question 0?" in verdicts else True


def test_without_verdicts_there_is_nothing_to_compare_with():
    with pytest.raises(InputError, match="probe: no response has a verdict"):
        probe(made(outcome=np.full(480, math.nan)), {"length": Function(length)}, rng=RNG)


def test_the_example_of_the_page_runs(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "signals.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(compile(page.split("```python\n")[1].split("```")[0], "signals.md", "exec"), {})
    said = capsys.readouterr().out
    assert "last_digit: With care." in said
    assert "best of 8 is worse than the majority vote: −" in said
    assert "gives 62% of the pairs equal scores" in said
    assert "words: Chance level." in said
    assert (tmp_path / "signals.html").is_file()
    assert (tmp_path / "scored.parquet").is_file()
