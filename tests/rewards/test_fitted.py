"""A fitted judge by its folder: found without opening it, opened when it is first asked."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from judge_models import answered, language_model

from reckon.errors import InputError, MissingError
from reckon.fit import Settings, fit_command
from reckon.rewards import Fitted, is_fitted, load_judge
from reckon.rewards import _fitted as module
from reckon.types import End, Problem

ROWS = [
    {"id": str(i), "prompt": f"{i}+1=", "completion": f"{i + off}\n!", "label": off == 1}
    for i in range(6)
    for off in (1, 2)
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs of `fit`, and a batch of responses in their tokens."""
    folder = tmp_path_factory.mktemp("fitted")
    start = language_model(head=False)
    start.save_pretrained(folder / "start")
    for kind in ("implicit-ce", "outcome-bce"):
        settings = Settings(lr=1e-2, epochs=2, batch=4, dtype="float32", device="cpu")
        fit_command(kind, ROWS, str(folder / "start"), folder / kind, settings, show="nothing")
    problems = [Problem(id="0", prompt="3+1="), Problem(id="1", prompt="4+1=")]
    return folder, answered(start, problems, ["4\n!", "9\n!", "5\n!", "6\n!"], group=[0, 0, 1, 1])


def values(reward, batch):
    ((_, stream),) = reward.score(batch).items()
    return stream.values


@pytest.mark.parametrize("place", ["", "model"])
@pytest.mark.parametrize("kind", ["implicit-ce", "outcome-bce"])
def test_it_says_what_the_judge_says(runs, kind, place):
    folder, batch = runs
    assert is_fitted(folder / kind / place)
    found = values(Fitted(str(folder / kind / place), device="cpu"), batch)
    torch.testing.assert_close(found, values(load_judge(folder / kind, device="cpu"), batch))
    assert found.abs().max() > 1e-4


def test_what_becomes_of_cut_off_responses_reaches_an_outcome_model_alone(runs):
    folder, batch = runs
    ends = torch.tensor([End.EOS, End.LENGTH, End.EOS, End.LENGTH])
    batch = replace(batch, rollouts=replace(batch.rollouts, end=ends))
    plain = values(Fitted(str(folder / "outcome-bce"), device="cpu"), batch)
    replaced = values(Fitted(str(folder / "outcome-bce"), unfinished="replace", penalty=-10.0, device="cpu"), batch)
    assert replaced[ends == End.LENGTH].tolist() == [-10, -10]
    assert torch.equal(replaced[ends == End.EOS], plain[ends == End.EOS])
    charged = values(Fitted(str(folder / "outcome-bce"), unfinished="subtract", penalty=1.0, device="cpu"), batch)
    torch.testing.assert_close(charged, plain - (ends == End.LENGTH).float())
    unknown = values(Fitted(str(folder / "outcome-bce"), unfinished="unknown", device="cpu"), batch)
    assert unknown.isnan().tolist() == [False, True, False, True]
    with pytest.raises(InputError, match="the judge is of kind 'implicit_reward', which has no `unfinished`"):
        values(Fitted(str(folder / "implicit-ce"), unfinished="unknown", device="cpu"), batch)


def test_per_and_how_reach_the_judge(runs):
    folder, batch = runs
    dense = values(Fitted(str(folder / "implicit-ce")), batch)
    assert dense.shape == batch.seq.mask.shape
    summed = values(Fitted(str(folder / "implicit-ce"), per="response", how="sum"), batch)
    torch.testing.assert_close(summed, dense.sum(dim=1))
    lowest = values(Fitted(str(folder / "implicit-ce"), per="response"), batch)
    assert (lowest <= summed).any()
    assert not torch.equal(lowest, summed)


def test_step_advantages_are_of_the_prover_that_was_chosen(tmp_path):
    model = language_model()
    model.save_pretrained(tmp_path)
    (tmp_path / "judge.json").write_text('{"kind": "step_advantage"}')
    batch = answered(model, [Problem(id="0", prompt="1+1=")], ["1\n2", "3"], group=[0, 0])

    def said(judge):
        return judge.score(batch)["step_advantage"].values

    own, best = (Fitted(str(tmp_path), prover_k=k, device="cpu") for k in (None, 4))
    assert torch.equal(said(best), said(replace(load_judge(tmp_path, device="cpu"), prover_k=4)))
    assert not torch.allclose(said(best), said(own))
    with pytest.raises(InputError, match="`prover_k` is 0; it must be 1 or more"):
        Fitted(str(tmp_path), prover_k=0)


def test_device_dtype_and_sizes_reach_the_judge(runs, monkeypatch):
    folder, batch = runs
    given = []
    monkeypatch.setattr(module, "load_judge", lambda path, **how: given.append(how) or load_judge(path, **how))
    judge = Fitted(str(folder / "outcome-bce"), device="cpu", dtype="bfloat16", tokens_per_batch=7)
    values(judge, batch)
    unset = dict.fromkeys(("per", "how", "unfinished", "penalty", "prover_k"))
    assert given == [{**unset, "device": "cpu", "dtype": "bfloat16", "tokens_per_batch": 7}]
    assert judge.judge.model.dtype == torch.bfloat16


def test_it_is_opened_once_and_not_before_it_is_asked(runs, monkeypatch):
    folder, batch = runs
    opened = []
    monkeypatch.setattr(module, "load_judge", lambda path, **how: opened.append(path) or load_judge(path, **how))
    judge = Fitted(str(folder / "outcome-bce"))
    assert not opened
    torch.testing.assert_close(values(judge, batch), values(judge, batch))
    assert len(opened) == 1


def test_what_is_no_judge_is_told_at_once(runs, tmp_path):
    folder, _ = runs
    for wrong in (tmp_path, tmp_path / "gone", folder / "start", Path(__file__)):
        with pytest.raises(MissingError, match="holds no judge"):
            Fitted(str(wrong))
        assert not is_fitted(wrong)
    for kind, choices, says in (
        ("outcome-bce", {"per": "token"}, "the judge is of kind 'outcome_model', which has no `per`. Leave it out"),
        ("outcome-bce", {"prover_k": 4}, "the judge is of kind 'outcome_model', which has no `prover_k`"),
        ("implicit-ce", {"per": "word"}, "`per` is 'word'; it must be token, step or response"),
        ("implicit-ce", {"per": "token", "how": "sum"}, "per='token' has no `how`. Leave it out"),
    ):
        with pytest.raises(InputError, match=says):
            Fitted(str(folder / kind), **choices)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "judge.json").write_text('{"kind": "step_model", "spliter": "x"}')
    with pytest.raises(InputError, match=r"`spliter` is not a setting of 'step_model'\. Did you mean `splitter`"):
        Fitted(str(damaged))
