"""The rule questions in words, their splits, one step further, and the rules of the study."""

import json

import pytest

from reckon.errors import InputError
from reckon.samplers import DomainSampler, FixedDomains, Uniform
from reckon.studies import _short_rules as rules
from reckon.studies import domain_sampling_transformer as study
from reckon.studies import judge, run_study
from reckon.tasks import Rules
from reckon.types import Rng

TASK = rules.ShortRules(seed=3, train=200, test=20)
FURTHER = rules.ShortRules(seed=3, test=20, further=True)


def domains_of(problems):
    return {domain: sum(problem.domain == domain for problem in problems) for domain in study.DOMAINS}


def test_domains_have_their_sizes():
    """200 by shares of 0.4, 0.4, 0.1 and 0.1."""
    assert domains_of(TASK.problems("train")) == {"forward_chaining": 80, "logic": 80, "ordering": 20, "kinship": 20}
    assert domains_of(TASK.problems("test")) == dict.fromkeys(study.DOMAINS, 20)
    assert domains_of(TASK.problems("dev")) == dict.fromkeys(study.DOMAINS, 40)
    assert domains_of(FURTHER.problems("test")) == dict.fromkeys(study.DOMAINS, 20)
    assert FURTHER.problems("train") == []
    assert set(rules.SHARES) == set(study.DOMAINS)
    assert sum(rules.SHARES.values()) == pytest.approx(1)


def test_splits_share_no_question_and_a_seed_is_its_own():
    prompts = [{problem.prompt for problem in TASK.problems(split)} for split in ("train", "dev", "test")]
    assert len(set().union(*prompts)) == sum(map(len, prompts))
    assert [p.prompt for p in rules.ShortRules(seed=3, train=200, test=20).problems("test")] == [
        p.prompt for p in TASK.problems("test")
    ]
    assert {p.prompt for p in rules.ShortRules(seed=4, test=20).problems("test")} != prompts[2]


def test_questions_are_those_of_the_task_rules_without_options():
    mine = [problem for problem in TASK.problems("test") if problem.domain == "ordering"]
    theirs = Rules(seed=3, domains=("ordering",), hops=(1, 2), train=20, dev=20, test=20).problems("test")
    for short, whole in zip(mine, theirs, strict=True):
        assert whole.prompt.startswith(f"{short.prompt} Answer with one of:")
        assert (short.answer, short.id) == (whole.answer, whole.id)


def test_further_is_one_inference_step_more():
    """Of people in a row there are as many clues as inference steps and one more."""
    for task, wanted in ((TASK, {2, 3}), (FURTHER, {4})):
        asked = [problem.prompt for problem in task.problems("test") if problem.domain == "ordering"]
        assert {prompt.count(" than ") for prompt in asked} == wanted


def test_what_is_right():
    problem = TASK.problems("test")[0]
    assert TASK.check(problem, problem.answer).outcome == 1
    assert TASK.check(problem, f" {problem.answer}").outcome == 1
    verdict = TASK.check(problem, f"{problem.answer} {problem.answer}")
    assert (verdict.outcome, verdict.reason) == (0, "wrong")
    assert TASK.check(problem, "").answer is None


@pytest.mark.parametrize("sizes", [{"train": -1}, {"dev": -1}, {"test": -5}])
def test_sizes_below_zero_are_refused(sizes):
    with pytest.raises(InputError, match="`train`, `dev` and `test` must be 0 or more"):
        rules.ShortRules(**sizes)


def test_every_answer_is_one_known_token_and_every_question_fits():
    tokenizer = rules.make_tokenizer(3, 200, 20)
    for task in (TASK, FURTHER):
        for split in rules.SPLITS:
            for problem in task.problems(split):
                asked, answer = tokenizer(problem.prompt)["input_ids"], tokenizer(problem.answer)["input_ids"]
                assert tokenizer.unk_token_id not in asked
                assert len(answer) == 1
                assert tokenizer.decode(answer) == problem.answer
                assert len(asked) + 1 <= rules.CONTEXT
    clue = "Ann is the great-uncle of Ben."
    assert tokenizer.convert_ids_to_tokens(tokenizer("What is (not a) or b?")["input_ids"])[:3] == ["What", "is", "("]
    assert tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(clue)[3][0] == "great-uncle"


def test_weights_depend_on_their_name_alone():
    tokenizer = rules.make_tokenizer(3, 200, 20)
    one, again, other = (rules.make_network(tokenizer, 16, Rng((n,))).lm_head.weight for n in (0, 0, 1))
    assert one.equal(again)
    assert not one.equal(other)


def test_arms_differ_in_sampler_and_refill_alone():
    plain = {name: value for name, value in study.ARMS[study.EQUAL].items() if name not in ("sampler", "refilled")}
    for settings in study.ARMS.values():
        assert plain.items() <= settings.items()
    kinds = {arm: settings["sampler"]["kind"] for arm, settings in study.ARMS.items()}
    assert kinds[study.EQUAL] == kinds[study.REFILLED] == "fixed_domains"
    assert {arm for arm, kind in kinds.items() if kind == "domain_sampler"} == {
        study.BY_ACCURACY,
        study.SHUFFLED,
        study.INVERTED,
    }
    assert [arm for arm, settings in study.ARMS.items() if settings["refilled"]] == [study.REFILLED]
    drawn = {kind.__name__: domains_of(kind(TASK).draw(20, Rng((0,)))) for kind in (FixedDomains, DomainSampler)}
    assert drawn["FixedDomains"] == drawn["DomainSampler"] == dict.fromkeys(study.DOMAINS, 5)  # before anything is seen
    assert domains_of(Uniform(TASK).draw(200, Rng((0,)))) == domains_of(TASK.problems("train"))


def test_fast_runs_end_to_end_and_arms_begin_alike(tmp_path):
    results = run_study("domain-sampling-transformer", tmp_path, fast=True, seeds=[1])
    assert results["not run"] == []
    cells = [json.loads(path.read_text()) for path in (tmp_path / "cells").iterdir()]
    assert len(cells) == len(study.ARMS)
    names = [f"{name}/start" for name in ("mean", "further", *study.DOMAINS)]
    mine = {cell["arm"]: cell["metrics"] for cell in cells}
    assert len({tuple(metrics[name] for name in names) for metrics in mine.values()}) == 1
    rollouts = {arm: metrics["rollouts"] for arm, metrics in mine.items()}
    assert {value for arm, value in rollouts.items() if arm != study.REFILLED} == {0.032}  # 4 problems, 8 each
    assert 0.032 <= rollouts[study.REFILLED] <= 8 * 0.032
    shares = [mine[study.EQUAL][f"share: {domain}"] for domain in study.DOMAINS]
    assert shares == [0.25] * 4
    assert mine[study.PROPORTIONAL]["share: logic"] is None


def test_a_start_depends_on_its_seed_alone():
    """Another seed has other words too, so that not even the sizes need be the same."""
    first, again, other = (
        study.warmed_up.__wrapped__(seed, 80, 4, 16).open().network.lm_head.weight for seed in (1, 1, 2)
    )
    assert first.equal(again)
    assert first.shape != other.shape or not first.equal(other)


def test_the_warm_up_shows_nothing_that_is_trained_on_or_examined():
    """2,000 problems of kinship are two in five of all there are, so that another seed has many of them again."""
    shown = study.shown_problems(3, 20_000, 100)
    assert domains_of(shown) == dict.fromkeys(study.DOMAINS, 100)
    task = rules.ShortRules(seed=3, train=20_000, test=100)
    trained, others = (
        {p.prompt for p in rules.ShortRules(seed=s, train=n, test=0).problems("train")}
        for s, n in ((3, 20_000), (study.OTHER + 3, 1000))
    )
    assert trained & others  # what is left out is there to be left out
    assert not {p.prompt for p in shown} & trained
    assert not {p.prompt for p in shown} & {p.prompt for split in ("dev", "test") for p in task.problems(split)}


def made_up(good):
    """Numbers of every arm that the claims wish for, or the same for all of them."""
    arms = {arm: dict.fromkeys([*study.SAYS, "mean/spent"], 0.5) for arm in study.ARMS}
    if good:
        for arm in study.ARMS:
            arms[arm] |= {"mean/start": 0.4, "further/start": 0.4}
        arms[study.BY_ACCURACY] |= {"mean/end": 0.6, "further/end": 0.6, "worst/end": 0.6, "mean/spent": 0.6}
        arms[study.INVERTED] |= {"mean/end": 0.4}
        arms[study.REFILLED] |= {"mean/end": 0.6, "rollouts": 1.0}
    return arms


def test_the_rules_can_be_seen_and_can_fail():
    tested = [claim for claim in study.CLAIMS if claim.effects]
    assert [judge(claim, [made_up(True)] * 3, 3).verdict for claim in tested] == ["seen"] * len(tested)
    assert [judge(claim, [made_up(False)] * 3, 3).verdict for claim in tested] == ["not seen"] * len(tested)
