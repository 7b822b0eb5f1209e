"""PAV-RL: its identities through the parts, on a world with every chance known; runs that agree to the last bit."""

import contextlib
import itertools
import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from reckon.credit import GAE, LeaveOneOut, Streamwise
from reckon.errors import InputError
from reckon.losses import PolicyGradient, ValueLoss
from reckon.methods import pav_rl
from reckon.models.table import Action, TablePolicy
from reckon.recipe import Recipe
from reckon.rewards import AdvantageMonitor, ExactAdvantage, MonteCarloAdvantage, Sum, Verifier
from reckon.runs import Run
from reckon.tasks import ChainArithmetic
from reckon.train import Plan, train
from reckon.types import Batch, Outputs, Problem, Rng, Rollouts, Sequences, Verdict
from whole_runs import broken_off, checkpoint, made_once, metrics

# The identities of section 6 of the specification. All responses of three tokens, 0 or 1, by a table of 7 prefixes


RESPONSES = list(itertools.product((0, 1), repeat=3))
RIGHT = {(1, 0, 1), (0, 1, 1)}
PREFIXES = [prefix for size in range(3) for prefix in itertools.product((0, 1), repeat=size)]


def table(seed):
    """A random law: logits [7, 2], by prefix."""
    return torch.from_numpy(Rng(("table", seed)).numpy().normal(size=(7, 2)))


def chances(logits):
    """The exact chance of a right response after every prefix, whole responses included."""
    law = logits.softmax(dim=1)
    found = {response: float(response in RIGHT) for response in RESPONSES}
    for prefix in reversed(PREFIXES):
        found[prefix] = sum(float(law[PREFIXES.index(prefix), a]) * found[(*prefix, a)] for a in (0, 1))
    return found


def every_response():
    outcome = torch.tensor([float(response in RIGHT) for response in RESPONSES])
    problem = Problem(id="0", prompt="?")
    rollouts = Rollouts(
        seq=Sequences(
            prompts=(torch.tensor([1]),),
            group=torch.zeros(8, dtype=torch.int64),
            tokens=torch.tensor(RESPONSES),
            mask=torch.ones(8, 3, dtype=torch.bool),
        ),
        problems=(problem,),
        text=tuple("".join(map(str, response)) for response in RESPONSES),
        pieces=tuple(tuple(map(str, response)) for response in RESPONSES),
        logprobs=torch.zeros(8, 3),
        end=torch.zeros(8, dtype=torch.int64),
    )
    return Batch.given(rollouts, outcome, train=True)


def exact(prover, k=1):
    known = chances(prover)
    rows = [[known[response[:t]] for t in range(4)] for response in RESPONSES]
    return ExactAdvantage(lambda rollouts, steps: torch.tensor(rows, dtype=torch.float64), prover_k=k)


def expected_gradient(policy, *, prover=None, alpha=0.0, kind="advantage", k=1, outcome=True):
    """Of the logits, over all responses by their chance: streams, credit and objective are the method's own."""
    logits = policy.clone().requires_grad_()
    parts = {"correct": Verifier()} | ({} if prover is None else {"progress": exact(prover, k)})
    batch = every_response()
    watched = () if outcome else ("correct",)
    streams = dict(Sum(parts, weights={} if prover is None else {"progress": alpha}, watch=watched).score(batch))
    if prover is not None:
        assert streams["progress"].kind == "advantage"
        streams["progress"] = replace(streams["progress"], kind=kind)
    credit = (Streamwise(estimator="reinforce") if outcome else LeaveOneOut())(batch, streams)
    objective = PolicyGradient(average="constant", length=1)
    places = torch.tensor([[PREFIXES.index(response[:t]) for t in range(3)] for response in RESPONSES])
    logprobs = logits.log_softmax(dim=1)[places, batch.seq.tokens]
    loss = objective(Outputs(logprobs=logprobs), objective.prepare(batch, credit))  # a mean over the 8
    (loss * 8 * logprobs.sum(dim=1, keepdim=True).exp().detach()).sum().backward()
    return -logits.grad


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("k", [1, 4])
def test_summed_into_returns_the_advantages_are_only_more_of_the_outcome(alpha, k):
    """The mistake, through the parts: exactly (1 + alpha) times the outcome's gradient, whoever proves."""
    policy, prover = table(0), table(1)
    outcome = expected_gradient(policy)
    summed = expected_gradient(policy, prover=prover, alpha=alpha, kind="reward", k=k)
    torch.testing.assert_close(summed, (1 + alpha) * outcome, rtol=0, atol=1e-6)
    own = expected_gradient(policy, prover=prover, alpha=alpha, k=k)
    assert (own - (1 + alpha) * outcome).norm() > 0.02 * alpha
    assert outcome.norm() > 0.05


def test_each_step_is_pushed_by_its_own_advantage():
    """d(s) pi(a|s) (A(s, a) - E_pi A(s, .)) in every state, beside the outcome's gradient."""
    policy, prover, alpha = table(0), table(1), 2.0
    law, known = policy.softmax(dim=1), chances(prover)
    wanted = expected_gradient(policy).clone()
    for place, prefix in enumerate(PREFIXES):
        reached = 1.0
        for t in range(len(prefix)):
            reached *= float(law[PREFIXES.index(prefix[:t]), prefix[t]])
        gain = torch.tensor([known[(*prefix, a)] - known[prefix] for a in (0, 1)], dtype=torch.float64)
        wanted[place] += alpha * reached * law[place] * (gain - (law[place] * gain).sum())
    torch.testing.assert_close(expected_gradient(policy, prover=prover, alpha=alpha), wanted, rtol=0, atol=1e-6)


def test_the_policy_as_its_own_prover_gives_no_new_direction():
    policy = table(0)
    own = expected_gradient(policy, prover=policy, alpha=2.0)
    torch.testing.assert_close(own, 3.0 * expected_gradient(policy), rtol=0, atol=1e-6)
    best = expected_gradient(policy, prover=policy, alpha=2.0, k=4)
    assert (best - 3.0 * expected_gradient(policy)).norm() > 0.02


def test_in_place_of_the_outcome_the_policys_own_advantages_give_its_gradient():
    """What `n_own` counts: sum over steps of grad log pi times A of the policy is the gradient of E[R]."""
    policy, prover = table(0), table(1)
    own = expected_gradient(policy, prover=policy, alpha=1.0, outcome=False)
    torch.testing.assert_close(own, expected_gradient(policy), rtol=0, atol=1e-6)
    other = expected_gradient(policy, prover=prover, alpha=1.0, outcome=False)
    assert (other - expected_gradient(policy)).norm() > 0.02


def test_weighing_nothing_it_is_the_outcome_alone():
    policy = table(0)
    assert torch.equal(expected_gradient(policy, prover=table(1), alpha=0.0), expected_gradient(policy))


# The method


def test_its_parts_are_the_papers():
    """Section 2.6: the advantage added with weight 3, KL 0.001, sums over tokens; the best of 4 of the start proves."""
    policy, reference, task = object(), object(), ChainArithmetic()
    parts = pav_rl(task, policy=policy, reference=reference)
    assert list(parts.reward.parts) == ["correct", "kl", "progress"]
    assert parts.reward.weights == {"progress": 3.0}
    progress, charge = parts.reward.parts["progress"], parts.reward.parts["kl"]
    assert isinstance(progress, MonteCarloAdvantage)
    assert (progress.policy, progress.task) == (policy, task)
    assert (progress.n_mc, progress.prover_k, progress.refresh, progress.prover) == (8, 4, 0, None)
    assert (charge.policy, charge.reference, charge.coef) == (policy, reference, 0.001)
    assert parts.advantage == LeaveOneOut()
    assert parts.objective == PolicyGradient(average="constant", length=1)
    assert list(pav_rl(task, kl=0.0, policy=policy).reward.parts) == ["correct", "progress"]
    own = object()
    learned = pav_rl(task, kl=0.0, policy=policy, critic=own).advantage
    assert isinstance(learned, GAE)
    assert (learned.critic, learned.lam, learned.expects, learned.learn) == (own, 1.0, "all", ValueLoss(coef=1.0))
    counted = pav_rl(task, kl=0.0, n_own=2, policy=policy).reward
    assert (list(counted.parts), counted.watch) == (["correct", "own", "progress"], ("correct",))
    q = counted.parts["own"]
    assert (q.policy, q.task, q.n_mc, q.prover_k, q.refresh) == (policy, task, 2, 1, 1)
    with pytest.raises(InputError, match="pav_rl makes its prover of the `policy`"):
        pav_rl(task)
    with pytest.raises(InputError, match="compares two models"):
        pav_rl(task, policy=policy)
    with pytest.raises(InputError, match="`alpha` is -1"):
        pav_rl(task, alpha=-1, kl=0.0, policy=policy)


class Letters:
    name = "letters"

    def problems(self, split):
        return [Problem(id=str(i), prompt="which?", answer="good") for i in range(4)]

    def check(self, problem, text):
        return Verdict(outcome=float(text == problem.answer), answer=text, reason="right")


def test_a_table_learns_by_it_in_the_same_loop(tmp_path):
    policy = TablePolicy(
        [Action(text="good", length=2), Action(text="bad")], torch.zeros(2), optimizer=partial(torch.optim.SGD, lr=0.5)
    )
    task = Letters()
    parts = pav_rl(task, alpha=1.0, n_mc=4, refresh=1, prover_k=1, policy=policy, reference=policy.reference())
    with Run.create(tmp_path / "run", recipe={}) as run:
        assert train(policy, task, parts, run, Plan(steps=30, prompts=4, answers=4, show="nothing"))
    assert policy.probabilities()[0, 0] > 0.95
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["reward/progress/start"] < 0.75 < lines[-1]["reward/progress/start"]  # the prover follows
    assert lines[-1]["reward/progress/rollouts"] == 16  # each prompt 4 times, shared by its answers


# Runs


RECIPE = """\
model: {{name: "{model}", dtype: float32}}
method: {{kind: pav_rl, n_mc: 4, prover_k: 2, kl: 0.01}}
task: {{kind: chain_arithmetic, operations: 2, train: 40, dev: 12, test: 12}}
sampling: {{max_new_tokens: 6}}
warmup: {{examples: 16, epochs: 6, lr: 3e-2, batch: 8}}
reward: {{progress: {{splitter: {{regex: ","}}}}}}
optimizer: {{lr: 3e-3}}
steps: 6
prompts: 4
answers: 4
evaluate: {{every: 3, n: 12, k: 2}}
save: {{every: 2}}
"""
PROGRESS = "reward.progress"
VARIANTS = {
    "as it is": (),
    "refreshed": (f"{PROGRESS}.refresh=2",),
    "no reference": ("method.kl=0", f"{PROGRESS}.refresh=4"),
    "adapters": ("model.lora={rank: 2}", f"{PROGRESS}.refresh=2"),
    "critic": ("critic={optimizer: {lr: 1e-2, epochs: 2, minibatches: 2}}",),
    "its own chances": ("method.n_own=2", "reward.own.splitter={regex: ','}"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_model):
    folder = tmp_path_factory.mktemp("pav")
    (folder / "pav.yaml").write_text(RECIPE.format(model=small_model))
    with contextlib.chdir(folder):
        yield folder


@pytest.fixture(scope="module")
def trained(home):
    """trained(*settings) -> the folder of a whole run with these settings, made once."""
    return made_once(home, "pav.yaml")


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_with_its_prover_it_is_as_if_nothing_had_happened(home, trained, variant):
    """Stopped after the third of six steps: every number, every weight of policy and prover, every moment."""
    settings = VARIANTS[variant]
    whole = trained(*settings)
    broken = broken_off(home / f"broken-{variant.replace(' ', '-')}", Sum, "pav.yaml", *settings)
    assert metrics(broken) == metrics(whole)
    assert checkpoint(broken) == checkpoint(whole)
    renewed = checkpoint(whole)["reward.safetensors"] != checkpoint(whole, 4)["reward.safetensors"]
    assert renewed is ("refresh" in " ".join(settings) or "n_own" in " ".join(settings))


def test_at_weight_0_it_is_training_on_the_outcome_alone_bit_for_bit(trained):
    without = trained("reward={correct: verifier, kl: {kind: kl_reward, coef: 0.01}}")
    for off in ("method.alpha=0", f"{PROGRESS}.weight=0", f"{PROGRESS}.watch=true"):
        beside = trained(off)
        assert checkpoint(beside)["policy.safetensors"] == checkpoint(without)["policy.safetensors"]
    assert checkpoint(trained())["policy.safetensors"] != checkpoint(without)["policy.safetensors"]


def test_what_a_step_tells_of_its_prover(trained):
    lines = [json.loads(line) for line in (trained() / "metrics.jsonl").read_text().splitlines()][1:]
    for line in lines:
        found = {name.removeprefix("reward/progress/") for name in line if name.startswith("reward/progress/")}
        assert {"rollouts", "tokens", "start", "noise"} <= found
        assert line["time/reward/progress"] > 0
        assert line["computed/reward/progress"] > line["reward/progress/tokens"] - line["reward/progress/rollouts"]
        assert line["reward/progress/rollouts"] > 0
        assert line["reward/progress/rollouts"] % 4 == 0  # each beginning 4 times


def test_counted_beside_it_a_judge_stays_what_it_was_and_is_charged_for_apart(home, trained):
    """Two countings of the same prover agree as far as their noise lets them, at every second step."""
    counts = "kind: monte_carlo_advantage, splitter: {regex: ','}, prover_k: 2"
    progress = (
        "{kind: advantage_monitor, weight: 3.0, every: 2, responses: 6,"
        f" reward: {{{counts}, n_mc: 4}}, against: {{{counts}, n_mc: 32}}}}"
    )
    watched = (f"reward={{correct: verifier, kl: {{kind: kl_reward, coef: 0.01}}, progress: {progress}}}",)
    whole = trained(*watched)
    assert checkpoint(whole)["policy.safetensors"] == checkpoint(trained())["policy.safetensors"]
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()][1:]
    for step, line in enumerate(lines):
        found = {name.rpartition("/")[2] for name in line if name.startswith("reward/progress/check/")}
        due = {"correlation", "steps", "rollouts", "tokens", "start", "noise"} if step % 2 == 0 else set()
        assert found == due
        assert (line.get("computed/advantage_check", 0) > 0) is bool(due)
    found = [line["reward/progress/check/correlation"] for line in lines[::2]]
    assert all(0.3 < one < 1 for one in found), found
    broken = broken_off(home / "broken-watched", AdvantageMonitor, "pav.yaml", *watched)
    assert metrics(broken) == metrics(whole)
    assert checkpoint(broken) == checkpoint(whole)


def test_every_setting_of_it_matters(trained, small_model):
    usual = checkpoint(trained())["policy.safetensors"]
    for setting in (
        "method.alpha=1",
        "method.n_mc=3",
        "method.prover_k=1",
        "method.refresh=1",
        "method.n_own=2",
        "method.kl=0.02",
        f"{PROGRESS}.splitter={{regex: '[05]'}}",
        f"{PROGRESS}.prover={small_model}",
    ):
        assert checkpoint(trained(setting))["policy.safetensors"] != usual, setting


def test_settings_of_the_method_and_of_its_parts_are_checked_in_the_recipe(home):
    for override, says in (
        ("method.alpha=-2", "`alpha` is -2"),
        (f"{PROGRESS}.n_mc=1", "`n_mc` is 1 and `prover_k` 2"),
        (f"{PROGRESS}.splitter={{regex: '('}}", "is no regular expression"),
        (f"{PROGRESS}.splitter=3", "`reward.progress.splitter` must be"),
        (f"{PROGRESS}.refesh=1", "`reward.progress.refesh` is not a setting"),
        ("advantage={kind: gae, expects: all}", "expects='all' goes with lam=1"),
    ):
        with pytest.raises(InputError, match=says):
            Recipe.load("pav.yaml", [override])


def test_a_recipe_with_a_splitter_means_the_same_again(home):
    recipe = Recipe.load("pav.yaml", ["critic={}"])
    again = Recipe.parse(recipe.to_yaml())
    assert again.resolved() == recipe.resolved()
    assert again.reward["progress"].part.settings["splitter"] == recipe.reward["progress"].part.settings["splitter"]
    assert again.reward["progress"].weight == 3.0
