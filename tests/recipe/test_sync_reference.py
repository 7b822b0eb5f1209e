"""A recipe's reference that follows the policy: what the KL is measured by, resuming, where it is refused."""

import contextlib
import json
import os
import signal

import pytest

from reckon.credit import GroupNormalized
from reckon.errors import InputError
from reckon.recipe import Recipe, load_run
from whole_runs import checkpoint, made_once, metrics, train

RECIPE = """\
model: {{name: "{model}", dtype: float32}}
method: {{kind: grpo, kl: 0.1}}
task: {{kind: chain_arithmetic, operations: 2, train: 40, dev: 12, test: 12}}
sampling: {{max_new_tokens: 6}}
reward: {{letters: "own.py:letters"}}
optimizer: {{lr: 3e-2}}
steps: 6
prompts: 3
answers: 4
evaluate: null
save: {{every: 2}}
"""
OWN = "def letters(completions):\n    return [sum(map(ord, text)) / 500 for text in completions]\n"
MOVED = "sync_reference={every: 2, alpha: 1.0}"


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_model):
    folder = tmp_path_factory.mktemp("sync")
    (folder / "sync.yaml").write_text(RECIPE.format(model=small_model))
    (folder / "own.py").write_text(OWN)
    with contextlib.chdir(folder):
        yield folder


@pytest.fixture(scope="module")
def trained(home):
    return made_once(home, "sync.yaml")


def divergence(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["policy/kl"] for line in lines if "policy/kl" in line]


def test_the_divergence_is_0_whenever_the_whole_policy_was_taken_over(trained):
    """Measured before each step's update: after the steps 2 and 4 policy and reference are one, as at the start."""
    moved, stayed = divergence(trained(MOVED)), divergence(trained())
    assert len(moved) == len(stayed) == 6
    assert moved[:2] == stayed[:2]
    assert [abs(moved[i]) < 1e-9 for i in range(6)] == [True, False, True, False, True, False]
    assert all(kl > 1e-6 for kl in stayed[1:])


@pytest.mark.parametrize(
    "settings", [("sync_reference={every: 3}",), ("sync_reference={every: 2}", "model.lora={rank: 2}")]
)
def test_resumed_it_is_as_if_nothing_had_happened(home, trained, settings, monkeypatch):
    """Stopped after the third of six steps: every number, every weight of policy and reference."""
    whole, broken = trained(*settings), home / f"broken-{len(settings)}"
    calls, real = [], GroupNormalized.__call__

    def stop_at_the_third(self, batch, streams):
        calls.append(batch.step)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, batch, streams)

    with monkeypatch.context() as patch:
        patch.setattr(GroupNormalized, "__call__", stop_at_the_third)
        assert train("sync.yaml", *settings, "--out", str(broken)) == 130
    assert calls == [0, 1, 2]
    assert train("--resume", str(broken)) == 0
    assert metrics(broken) == metrics(whole)
    assert checkpoint(broken) == checkpoint(whole)


def test_the_reference_is_kept_with_the_policy_and_not_needed_to_look_at_it(trained):
    plain, moved = (checkpoint(trained(*settings))["policy.json"] for settings in ((), (MOVED,)))
    assert b"references" in moved
    assert b"references" not in plain
    assert load_run(trained(MOVED), "last").state_dict().keys() == {"steps", "weights", "adamw"}


def test_where_nothing_is_compared_with_it_is_refused(home):
    with pytest.raises(InputError, match="`sync_reference` moves a reference, and no part compares with one"):
        Recipe.load("sync.yaml", ["method=grpo", MOVED]).check_training()
    Recipe.load("sync.yaml", [MOVED]).check_training()
    for given, says in (
        ("{every: 0}", "`sync_reference.every` must be a whole number of at least 1"),
        ("{alpha: 1.5}", "above 0 of at most 1"),
    ):
        with pytest.raises(InputError, match=says):
            Recipe.load("sync.yaml", [f"sync_reference={given}"])


def test_left_out_it_is_not_written_into_the_recipe(home):
    assert "sync_reference" not in Recipe.load("sync.yaml").resolved()
    again = Recipe.load("sync.yaml", ["sync_reference={}"])
    assert again.resolved()["sync_reference"] == {"every": 512, "alpha": 0.6}
    assert Recipe.parse(again.to_yaml(), name="again").resolved() == again.resolved()
