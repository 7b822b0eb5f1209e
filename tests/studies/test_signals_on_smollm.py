"""The study signals-on-smollm: its marks by hand, its tokens counted, its start shared, its runs taken up again."""

import json
import math
from dataclasses import replace

import pytest
import torch

from reckon.errors import InputError, MissingError, RunError
from reckon.evaluate import Evaluation, Response
from reckon.runs import Run
from reckon.steps import Pattern, step_ends, token_ends
from reckon.stopping import stop_after_step
from reckon.studies import Row, run_study
from reckon.studies import _smollm_exam as exam
from reckon.studies import _smollm_run as runs
from reckon.studies._smollm_start import _BUT_WHITE_SPACE, KEYS, TRAINED, Start
from reckon.studies._study import slug
from reckon.studies.signals_on_smollm import (
    ARMS,
    CLAIMS,
    COOPER,
    EXACT,
    EXACT_4,
    GRPO,
    NOVELTY,
    OREAL,
    PRIME,
    RLOO,
    STEPS,
    STUDY,
    SURROGATE,
    cell,
)
from reckon.studies.signals_on_smollm_pages import PAID, knowledge, write_pages
from reckon.studies.signals_on_smollm_trl import FORMS, main, make_reward, make_trainer, rows_for
from reckon.tasks import RunningSums
from reckon.train import take_step
from reckon.types import Problem, Rng

SUM = Problem(id="sum", prompt="Add these numbers step by step: 17, 48, 20", answer="85")
FAST = {arm: {**settings, **STUDY.fast} for arm, settings in ARMS.items()}


@pytest.mark.parametrize(
    ("text", "judged", "right", "reached"),
    [
        ("17 + 48 = 65\n65 + 20 = 85\nTotal: 85", 3, 3, 1),
        ("17 + 48 + 20 = 85\nTotal: 85", 2, 2, 1),  # in fewer lines, and all the way
        ("17 + 48 = 65\n65 + 20 = 86\nTotal: 86", 3, 2, 1 / 3),  # the total repeats what was written
        ("17 + 48 = 66\n66 + 20 = 86\nTotal: 86", 3, 2, 0),  # what follows from a wrong line is right again
        ("17 + 48 = 66\n66 + 20 = 85\nTotal: 85", 3, 1, 0),  # two errors that cancel out
        ("17 + 48 = 65", 1, 1, 1 / 3),  # what is missing is the first error
        ("17 + 48 = 65\nTotal: 65", 2, 1, 1 / 3),
        ("17 + 48 = 65\n65 + 20 = 85\nTotal: 85\n85 + 1 = 86", 4, 3, 1),  # what comes after the total is too late
        ("no idea", 0, 0, 0),
        ("85", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_how_far_a_response_gets(text, judged, right, reached):
    task = RunningSums()
    found = exam.walk(task.steps(SUM, text), 3, right=task.check(SUM, text).outcome == 1)
    assert (found.judged, found.right) == (judged, right)
    assert found.reached == pytest.approx(reached)


def test_what_counts_as_a_final_answer():
    assert exam.total("17 + 48 = 65\nTotal: 65") == "65"
    assert exam.total("Total: 65\n") == "65"
    assert exam.total("Total: 65\nand more") is None
    assert exam.total("17 + 48 = 65") is None
    assert exam.total("SubTotal: 65") is None


def response(task, problem, sample, text, logprobs):
    verdict = task.check(problem, text)
    return Response(
        row=0,
        group=0,
        problem=problem.id,
        domain=problem.domain,
        prompt=problem.prompt,
        answer=problem.answer,
        text=text,
        outcome=verdict.outcome,
        parsed=verdict.answer,
        reason=verdict.reason,
        end="eos" if sample == 0 else "length",
        tokens=tuple(range(len(logprobs))),
        pieces=("",) * len(logprobs),
        logprobs=tuple(logprobs),
        sample=sample,
        greedy=False,
    )


@pytest.fixture
def by_hand():
    """Two problems with two samples: a worked solution and nothing, then a total too early and no idea."""
    task = exam.make_task({"count": [3, 3], "size": [1, 50]}, test=2)
    first, second = task.problems("test")
    a, b, _ = (int(number) for number in second.prompt.split(": ")[1].split(", "))
    early = f"{a} + {b} = {a + b}\nTotal: {a + b}"
    rows = (
        response(task, first, 0, task.solution(first), [-1.0, -1.0, -4.0]),
        response(task, first, 1, "", [-2.0]),
        response(task, second, 0, early, [-0.5, -0.5]),
        response(task, second, 1, "no idea", [-1.0]),
    )
    return task, Evaluation(responses=rows)


def test_marks_by_hand(by_hand):
    """Lines: 3 of 3, none, 1 of 2, none. The way to the first error: 1, 0, 1/3, 0. 10 nats over 7 tokens."""
    task, found = by_hand
    marks = exam.marks(found, task)
    assert marks["accuracy"] == 0.25
    assert marks["low"] < 0.25 < marks["high"]
    assert marks["pass@2"] == 0.5
    assert marks["right steps"] == 4 / 5
    assert marks["first error"] == pytest.approx(1 / 3)
    assert marks["entropy"] == pytest.approx(10 / 7)
    assert marks["length"] == 7 / 4
    assert marks["cut"] == 0.5


def test_gains_are_paired_by_problem(by_hand):
    """From 0 and 1/2 to 1/2 and 0: the mean is 0, and the error sqrt(1/2) / sqrt(2)."""
    task, after = by_hand
    first, second = task.problems("test")
    before = Evaluation(
        responses=(
            *(response(task, first, i, "", [-1.0]) for i in range(2)),
            response(task, second, 0, "", [-1.0]),
            response(task, second, 1, task.solution(second), [-1.0]),
        )
    )
    gain = exam.gained(before, after, 2)
    assert (gain.mean, gain.error) == (0, pytest.approx(0.5))
    assert exam.shares(after, 1) == {first.id: 1, second.id: 0}
    assert exam.gained(before, after, 1).mean == 0.5  # of the first samples alone: 1 - 0 and 0 - 0


def test_windows_and_minutes_by_hand():
    """Steps of 100 and 300 tokens: half of the first 200 are of either; the second step takes three minutes."""
    lines = [
        {"step": 1, "tokens/generated": 100.0, "value": 0.0, "time/sample": 20.0, "time/update": 40.0},
        {"step": 1, "generated/held-out/accuracy": 1.0},
        {"step": 2, "tokens/generated": 300.0, "value": 1.0, "time/sample": 60.0, "time/reward/correct": 120.0},
    ]
    assert runs.windows(lines, "value", 400, 2) == [0.5, 1.0]
    assert runs.windows(lines, "value", 200, 2) == [0.0, 1.0]
    assert runs.minutes(lines, 400, 2) == [2.0, 4.0]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder to work in: the start is made once, for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("signals"))
        yield patch


@pytest.fixture(scope="module")
def every_arm(home):
    return {arm: cell(settings, 0) for arm, settings in FAST.items()}


def lines_of(arm):
    return Run.open(runs.run_folder(FAST[arm], 0)).metrics()


def rollouts_of(arm, step=1):
    table = Run.open(runs.run_folder(FAST[arm], 0)).rollouts(columns=["step", "text", "train", "tokens"]).to_pylist()
    return [row for row in table if row["step"] == step]


def test_every_claim_and_row_reads_what_is_there(every_arm):
    found = {arm: measured.metrics for arm, measured in every_arm.items()}
    for claim in CLAIMS:
        assert all(math.isfinite(effect.of(found)) for effect in claim.effects), claim.says
    for row in STUDY.rows:
        assert math.isfinite(found[row.arm][row.metric]), row
    lengths = {len(curve) for measured in every_arm.values() for curve in measured.curves.values()}
    assert lengths == {STUDY.fast["windows"]}


@pytest.mark.parametrize("budget", runs.BUDGETS)
def test_all_arms_are_read_at_equal_tokens(every_arm, budget):
    """As soon as the budget is used up: beyond it by less than the step that did so."""
    most = STUDY.fast[budget]
    for arm, measured in every_arm.items():
        totals = [line[f"spent/{budget}"] for line in lines_of(arm) if f"spent/{budget}" in line]
        read = measured.metrics[f"{budget}/spent/{budget}"]
        assert read == min(total for total in totals if total >= most), arm
        largest = max(b - a for a, b in zip([0, *totals], totals, strict=False))
        assert most <= read < most + largest, arm


def test_what_is_spent_is_what_was_drawn_and_what_trains(every_arm):
    """The meter against the loop's own count, and against the rows that the run has kept."""
    for arm in every_arm:
        steps = [line for line in lines_of(arm) if "tokens/generated" in line]
        assert steps[-1]["spent/generated"] == sum(line["tokens/generated"] for line in steps), arm
        trained = sum(len(row["tokens"]) for row in rollouts_of(arm) if row["train"])
        assert steps[0]["spent/trained"] == trained, arm
    whole = [line for line in lines_of(GRPO) if "tokens/generated" in line]
    assert [line["spent/trained"] for line in whole] == [line["spent/generated"] for line in whole]


def test_arms_begin_alike(every_arm):
    """One policy, one set of marks, the same problems and draws: the first step's answers are the same."""
    begun = {
        arm: {k: v for k, v in one.metrics.items() if k.startswith("start/held")} for arm, one in every_arm.items()
    }
    assert all(marks == begun[GRPO] for marks in begun.values())
    first = [row["text"] for row in rollouts_of(GRPO)]
    assert len(first) == STUDY.fast["prompts"] * STUDY.fast["group"]
    for arm in (RLOO, STEPS, SURROGATE, NOVELTY, COOPER, EXACT, EXACT_4):
        assert [row["text"] for row in rollouts_of(arm)] == first, arm
    for arm in (PRIME, OREAL):  # of which some are dropped
        assert {row["text"] for row in rollouts_of(arm)} <= set(first), arm
    assert len({Start.of(settings).folder for settings in FAST.values()}) == 1


def test_judges_begin_as_the_start_has_them(every_arm):
    """PRIME's reward model differs from the policy at the first step, and OREAL's head is not zero."""
    prime, oreal = lines_of(PRIME)[1], lines_of(OREAL)[1]
    assert prime["step"] == oreal["step"] == 1
    assert prime["reward/process/loss"] != pytest.approx(math.log(2), abs=1e-9)
    recipe = runs.arm_recipe(FAST[OREAL], Start.of(FAST[OREAL]), 0, runs.run_folder(FAST[OREAL], 0))
    parts, _ = runs.arm_parts(recipe, recipe.load_policy(), FAST[OREAL], Start.of(FAST[OREAL]))
    assert bool(parts.reward.parts["tokens"].model.head.weight.any())


def test_every_judge_computes_in_float32_as_the_policy_does(every_arm, monkeypatch):
    """Also where a machine has bfloat16, or times and rewards of some arms would be of another arithmetic."""
    monkeypatch.setattr("reckon.models._load.has_bfloat16", lambda device: True)
    for arm, name in ((PRIME, "process"), (OREAL, "tokens"), (STEPS, "progress"), (COOPER, "judge")):
        recipe = runs.arm_recipe(FAST[arm], Start.of(FAST[arm]), 0, runs.run_folder(FAST[arm], 0))
        parts, _ = runs.arm_parts(recipe, recipe.load_policy(), FAST[arm], Start.of(FAST[arm]))
        part = parts.reward.parts[name]
        model = part.judge.verifier if arm == STEPS else part.reward.model if arm == COOPER else part.model
        assert model.dtype == torch.float32, arm


def test_oreals_head_is_shown_the_verdict_at_every_token_but_line_ends():
    pieces = ["17", " +", " ", "4", "8", " =", " 6", "5", "\n", "Total", ":", " ", "6", "5"]
    found = token_ends(pieces, step_ends("".join(pieces), Pattern(_BUT_WHITE_SPACE)))
    assert found == [i for i, piece in enumerate(pieces) if piece.strip()]


def test_the_entropy_told_is_that_of_all_that_was_drawn(every_arm):
    """The first step's draws are the same in all arms, whatever their rules keep."""
    found = {arm: next(line["entropy"] for line in lines_of(arm) if "entropy" in line) for arm in every_arm}
    assert found == dict.fromkeys(every_arm, pytest.approx(found[GRPO], rel=1e-6))
    assert found[GRPO] > 0


def test_the_start_is_made_once_and_its_cost_is_kept(every_arm):
    start = Start.of(FAST[PRIME])
    before = {path.name: path.stat().st_mtime_ns for path in start.folder.iterdir()}
    tokens = sum(len(row.tokens) for row in read(start.answers).responses)
    assert start.cost(["answers"])["generated"] == tokens > 0
    assert start.cost(["answers", "implicit"])["learned"] > 0
    assert start.cost([]) == {"generated": 0, "learned": 0, "seconds": 0}
    for piece in ("policy", "implicit", "tokens", "judge", "labels", "verifier"):
        assert start.give(piece).startswith(str(start.folder))
    assert {path.name: path.stat().st_mtime_ns for path in start.folder.iterdir()} == before
    assert every_arm[GRPO].metrics["start/generated"] == 0
    assert every_arm[PRIME].metrics["start/generated"] == tokens
    assert every_arm[STEPS].metrics["start/generated"] == start.cost(["labels"])["generated"] > 0


def read(path):
    from reckon.recipe import read_evaluation

    return read_evaluation(path)


def test_the_wanted_length_is_that_of_the_worked_solutions(every_arm):
    """One token a character here, and the end token: the 70th percentile, as a share of the limit."""
    task = exam.make_task(STUDY.fast["sums"], train=STUDY.fast["worked"])
    lengths = sorted(len(task.solution(problem)) + 1 for problem in task.problems("train"))
    assert Start.of(FAST[SURROGATE]).give("p") == lengths[int(0.7 * len(lengths))] / STUDY.fast["limit"]


def test_an_interrupted_cell_goes_on_where_it_was(every_arm, monkeypatch):
    """Stopped after its first step and taken up again: the same digits, clocks aside, with a judge that has learned."""
    settings = {**FAST[PRIME], "windows": 1}  # a folder of its own, from the same start
    train = runs.train

    def stopped(policy, task, parts, run, plan, examine):
        def look(policy, step):
            found = examine(policy, step)
            if step == 1:
                stop_after_step("as somebody at the keyboard would")
            return found

        return train(policy, task, parts, run, plan, look)

    monkeypatch.setattr(runs, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        runs.run_arm(settings, 0)
    folder = runs.run_folder(settings, 0)
    assert Run.open(folder).checkpoints == [1]
    monkeypatch.setattr(runs, "train", train)
    resumed = runs.run_arm(settings, 0)[1]
    assert [timeless(line) for line in resumed] == [timeless(line) for line in lines_of(PRIME)]
    assert not (folder / "checkpoints").exists()
    assert runs.run_arm(settings, 0)[1] == resumed  # finished: read, not run


def timeless(line):
    return {name: repr(value) for name, value in line.items() if not name.startswith(("seconds", "time/", "memory/"))}


def test_too_few_steps_for_the_budgets_are_told(every_arm):
    with pytest.raises(RunError, match=r"1 steps have spent .* Raise `most`"):
        runs.run_arm({**FAST[GRPO], "most": 1}, 0)


def test_settings_of_the_start_and_of_the_arms():
    for settings in ARMS.values():
        assert set(KEYS) <= set(settings)
    assert set(STUDY.fast) <= set(ARMS[GRPO])
    common = [{k: v for k, v in s.items() if k not in ("arm", "recipe", "stages", "begin")} for s in ARMS.values()]
    assert all(one == common[0] for one in common)  # what differs is the signal


def test_pages_of_finished_cells(every_arm, tmp_path):
    small = replace(STUDY, arms={GRPO: ARMS[GRPO]}, claims=(), rows=(Row(arm=GRPO, metric="minutes", says="minutes"),))
    run_study(small, tmp_path, fast=True, seeds=[0])
    drawing, report, table, page = write_pages(tmp_path)
    assert drawing.read_bytes().startswith(b"\x89PNG")
    assert report == tmp_path / "reports" / f"{slug(GRPO)}-seed-0.html"
    assert "running_sums" in report.read_text()
    shares = json.loads(table.read_text())
    measured = every_arm[GRPO].metrics
    for name in exam.EXAMS:
        for arm, budget in (("the start", "start"), (GRPO, "generated")):
            (by_problem,) = shares[name][arm].values()
            assert sum(by_problem.values()) / len(by_problem) == pytest.approx(measured[f"{budget}/{name}/accuracy"])
    assert f"| {GRPO} | 0 |" in page.read_text()
    with pytest.raises(MissingError, match=r"no results\.json"):
        write_pages(tmp_path / "nowhere")


def test_pages_keep_what_runs_elsewhere_had_told(every_arm, tmp_path):
    """The next machine has no runs of this one: what was written of them stays."""
    small = replace(STUDY, arms={GRPO: ARMS[GRPO]}, claims=(), rows=(Row(arm=GRPO, metric="minutes", says="minutes"),))
    run_study(small, tmp_path, fast=True, seeds=[0])
    ids = [problem.id for problem in exam.exam_task(FAST[GRPO], "held-out").problems("test")]
    elsewhere = {"held-out": {RLOO: {"0": dict.fromkeys(ids, 0.5)}}}
    (tmp_path / "by-problem.json").write_text(json.dumps(elsewhere))
    shares = json.loads(write_pages(tmp_path)[2].read_text())
    assert shares["held-out"][RLOO] == elsewhere["held-out"][RLOO]
    assert set(shares["held-out"]) == {RLOO, "the start", GRPO}


@pytest.mark.parametrize("arm", PAID)
def test_what_is_paid_is_in_the_rollouts(every_arm, arm):
    found = knowledge(runs.run_folder(FAST[arm], 0), PAID[arm])
    groups = sum(half["groups"] for half in found.values())
    assert groups >= 1
    assert all(0 <= half["auc"] <= 1 for half in found.values() if half["groups"])


@pytest.mark.parametrize("signal", FORMS)
def test_every_signal_is_a_reward_of_trl(every_arm, signal):
    """Called as TRL calls it, with one right answer in a group."""
    from transformers import AutoTokenizer

    start = Start.of(FAST[GRPO])
    task = exam.make_task(STUDY.fast["sums"], seed=TRAINED, train=2)
    tokenizer = AutoTokenizer.from_pretrained(str(start.policy))
    group = STUDY.fast["group"]
    row = rows_for(task, 0, 1, chat=False)[0]
    (problem,) = (one for one in task.problems("train") if one.id == row["id"])
    texts = [task.solution(problem), *["no idea"] * (group - 1)]
    ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    reward = make_reward(signal, start, task, tokenizer)
    columns = {name: [value] * group for name, value in row.items() if name != "prompt"}
    values = reward(prompts=[row["prompt"]] * group, completions=texts, completion_ids=ids, **columns)
    assert len(values) == group
    assert all(math.isfinite(value) for value in values)
    if signal not in ("judge", "implicit"):  # models that have seen sixteen answers know nothing yet
        assert values[0] > max(values[1:])
    if FORMS[signal].scale == "none" and signal != "implicit":  # one right of four, and alone in having an answer
        advantage = torch.tensor(values) - sum(values) / group
        expected = {"leave-one-out": [1.0, *[-1 / 3] * 3], "novel": [1.5 + 0.075, *[-0.5 - 0.025] * 3]}[signal]
        assert advantage.tolist() == pytest.approx(expected, rel=1e-3)
    with pytest.raises(InputError, match="there is no signal 'best'"):
        make_reward("best", start, task, tokenizer)


def test_trl_is_posed_the_problems_of_the_arms_in_their_order(every_arm):
    """Those that GRPO's run has kept, of which no group is dropped, against the rows of the bridge."""
    task = exam.make_task(STUDY.fast["sums"], seed=TRAINED, train=STUDY.fast["problems"])
    folder = runs.run_folder(FAST[GRPO], 0)
    kept = Run.open(folder).rollouts(columns=["step", "problem"]).to_pylist()
    group, prompts = STUDY.fast["group"], STUDY.fast["prompts"]
    posed = [row["problem"] for row in sorted(kept, key=lambda row: row["step"])][::group]
    assert len(posed) >= 2 * prompts
    assert [row["id"] for row in rows_for(task, 0, len(posed), chat=False)] == posed
    assert [row["id"] for row in rows_for(task, 1, len(posed), chat=False)] != posed
    (talk,) = rows_for(task, 0, 1, chat=True)[0]["prompt"]
    assert talk == {"role": "user", "content": rows_for(task, 0, 1, chat=False)[0]["prompt"]}


@pytest.mark.parametrize(
    ("signal", "arm", "smaller"),
    [("verdict", GRPO, 1), ("leave-one-out", RLOO, FAST[RLOO]["limit"]), ("format-length", SURROGATE, 1)],
)
def test_on_the_same_answers_both_loops_learn_the_same(every_arm, tmp_path, signal, arm, smaller):
    """Three steps of the arm, and three of TRL's trainer that is handed the arm's answers in place of its own draws:
    the gradient of every step, and where the weights have gone."""
    pytest.importorskip("trl", reason="TRL is not installed (extra `oracles`)")
    pytest.importorskip("datasets")
    settings, start = FAST[arm], Start.of(FAST[arm])
    recipe = runs.arm_recipe(settings, start, 0, tmp_path / "run")
    policy = recipe.load_policy()
    begun = {name: value.clone() for name, value in policy.network.state_dict().items()}
    parts, _ = runs.arm_parts(recipe, policy, settings, start)
    taken = [
        take_step(
            policy,
            recipe.made_task,
            parts,
            Rng((0, step)),
            step=step,
            prompts=settings["prompts"],
            answers=settings["group"],
        )
        for step in range(3)
    ]
    assert any(0 < one.metrics["outcome/mean"] < 1 for one in taken)
    answers = [[list(tokens) for tokens in answers_of(one.batch)] for one in taken]

    def same(prompts, trainer):
        ids = [trainer.processing_class(prompt)["input_ids"] for prompt in prompts]
        return {"prompt_ids": ids, "completion_ids": answers[trainer.state.global_step], "logprobs": None}

    trainer = make_trainer(signal, {**settings, "most": 3, "generated": 10**9}, 0, str(tmp_path), rollout_func=same)
    trainer.train()
    norms = [line["grad_norm"] * smaller for line in trainer.state.log_history if "grad_norm" in line]
    assert norms == pytest.approx([one.metrics["policy/grad_norm"] for one in taken], rel=1e-3)
    ours, theirs = (
        torch.cat([(net.state_dict()[name] - value).flatten() for name, value in begun.items()])
        for net in (policy.network, trainer.model)
    )
    assert torch.linalg.norm(ours - theirs) < 0.001 * torch.linalg.norm(ours)  # Adam's epsilon unscaled: 0.026


def answers_of(batch):
    """The sampled tokens of every response, in order."""
    return [row[mask].tolist() for row, mask in zip(batch.seq.tokens, batch.seq.mask, strict=True)]


def test_the_bridge_trains_in_trl_from_the_same_start(every_arm, tmp_path, capsys):
    pytest.importorskip("trl", reason="TRL is not installed (extra `oracles`)")
    pytest.importorskip("datasets")
    with pytest.raises(MissingError, match=r"there is no .*results\.json.* Run `reckon study signals-on-smollm --out"):
        main(["verdict", "--out", str(tmp_path)])
    small = replace(STUDY, arms={GRPO: ARMS[GRPO]}, claims=(), rows=(Row(arm=GRPO, metric="minutes", says="minutes"),))
    run_study(small, tmp_path, fast=True, seeds=[0])
    with pytest.raises(MissingError, match=r"there is no .*by-problem\.json.* Run `python -m reckon"):
        main(["verdict", "--out", str(tmp_path)])
    write_pages(tmp_path)
    with pytest.raises(MissingError, match="has not run RLOO with seed 0"):
        main(["leave-one-out", "--out", str(tmp_path)])
    found = main(["verdict", "--out", str(tmp_path)])
    assert found == json.loads((tmp_path / "trl" / "verdict-seed-0.json").read_text())
    begun = {k.removeprefix("start/held-out/"): v for k, v in every_arm[GRPO].metrics.items() if "start/held-out/" in k}
    assert found["before"]["held-out"] == pytest.approx(begun)
    assert found["after"].keys() == found["shares"].keys() == set(exam.EXAMS)
    most = STUDY.fast["prompts"] * STUDY.fast["group"] * STUDY.fast["limit"]
    assert STUDY.fast["generated"] <= found["generated"] < STUDY.fast["generated"] + most
    assert len(found["rewards"]) == found["steps"] >= STUDY.fast["generated"] / most
    assert "verdict, seed 0: held-out accuracy" in capsys.readouterr().out
    assert "| verdict | GRPO | 0 |" in (tmp_path / "trl" / "README.md").read_text()
    assert main(["verdict", "--out", str(tmp_path)]) == found  # read, not run again
