"""The value head read after a token: scores[:, t] is values[:, t + 1], by whatever path it is computed."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from reckon.errors import InputError
from reckon.models import Lora, Optimization
from reckon.types import Problem


def with_head(make, seed=1, **settings):
    """A model whose value head is drawn at random, so that every mistake of place shows."""
    model = make(value_head=True, **settings)
    with torch.no_grad():
        model.head.weight.copy_(torch.randn(1, 32, generator=torch.Generator().manual_seed(seed)))
    return model


def plain_scores(model, seq):
    """[N, T]: every row alone through transformers, and the head by hand on its last hidden states."""
    out = torch.zeros(seq.tokens.shape)
    for row, group in enumerate(seq.group.tolist()):
        prompt, n = seq.prompts[group], int(seq.mask[row].sum())
        tokens = torch.cat([prompt, seq.tokens[row, :n]])[None]
        hidden = model.network.base_model(input_ids=tokens)[0][0]
        out[row, :n] = (hidden @ model.head.weight[0])[len(prompt) :]
    return out


def test_a_score_is_the_next_tokens_value(make, ragged):
    """tokens  a b c .    values  v(prompt) v(a) v(ab)     scores  v(a) v(ab) v(abc)."""
    out = with_head(make).outputs(ragged, ("scores", "values"))
    both = ragged.mask[:, 1:]
    torch.testing.assert_close(out.scores[:, :-1][both], out.values[:, 1:][both], atol=1e-5, rtol=0)
    assert bool((out.scores[~ragged.mask] == 0).all())


def test_the_last_token_has_a_score_and_it_is_of_the_whole_response(make, ragged):
    model = with_head(make)
    scores = model.outputs(ragged, ("scores",)).scores
    torch.testing.assert_close(scores, plain_scores(model, ragged).detach(), atol=1e-5, rtol=0)


def test_the_first_value_is_of_the_prompt_alone_whatever_follows(make, ragged):
    values = with_head(make).outputs(ragged, ("values",)).values
    torch.testing.assert_close(values[0, 0], values[1, 0], atol=1e-5, rtol=0)  # two responses to one prompt
    assert abs(float(values[0, 0] - values[2, 0])) > 1e-3


@pytest.mark.parametrize("budget", [8, 20, 1024])
@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_packed_shared_and_plain_agree(make, ragged, budget, lora):
    model = with_head(make, tokens_per_batch=budget, lora=lora)
    expected = plain_scores(model, ragged).detach()
    torch.testing.assert_close(model.outputs(ragged, ("scores",)).scores, expected, atol=1e-5, rtol=0)
    model._packs = False
    torch.testing.assert_close(model.outputs(ragged, ("scores",)).scores, expected, atol=1e-5, rtol=0)


def test_neither_company_nor_padding_changes_a_score(make, ragged):
    model = with_head(make)
    together = model.outputs(ragged, ("scores",)).scores
    padded = replace(
        ragged,
        tokens=torch.nn.functional.pad(ragged.tokens, (0, 5), value=7),
        mask=torch.nn.functional.pad(ragged.mask, (0, 5)),
    )
    torch.testing.assert_close(model.outputs(padded, ("scores",)).scores[:, :6], together, atol=1e-5, rtol=0)
    for row in range(5):
        alone = model.outputs(ragged.take(torch.tensor([row])), ("scores",)).scores[0]
        torch.testing.assert_close(alone, together[row], atol=1e-5, rtol=0)


def test_after_a_given_prefix_only_sampled_tokens_have_scores(make, ragged):
    model = with_head(make)
    whole = model.outputs(ragged, ("scores",)).scores
    mask = ragged.mask.clone()
    mask[0, :2] = False  # the first two tokens of the first response were given
    part = model.outputs(replace(ragged, mask=mask), ("scores",)).scores
    assert part[0, :2].tolist() == [0, 0]
    torch.testing.assert_close(part[0, 2:], whole[0, 2:], atol=1e-5, rtol=0)


def head_loss(outputs, columns):
    return (outputs.scores - columns["target"]).square() * columns["on"]


@pytest.mark.parametrize("packs", [True, False])
def test_the_gradient_of_a_loss_on_scores_is_the_plain_one(make, ragged, packs):
    """One step of gradient descent by hand against `step`, whose Adam moves by lr * sign(gradient) at first."""
    model = with_head(make, optimizer=Optimization(lr=1.0, clip=None), tokens_per_batch=16)
    model._packs = packs
    on = ragged.mask / ragged.mask.sum()
    target = torch.linspace(-1, 1, 30).reshape(5, 6)
    loss = ((plain_scores(model, ragged) - target).square() * on).sum()
    loss.backward()
    expected = {name: p.grad.clone() for name, p in model._trained.items() if p.grad is not None}
    found = {}
    model._adamw.register_step_pre_hook(
        lambda *_: found.update({name: p.grad.clone() for name, p in model._trained.items() if p.grad is not None})
    )
    metrics = model.step(ragged, {"on": on, "target": target}, head_loss, ("scores",))
    assert metrics["policy/loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert "value_head.weight" in expected
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_a_head_may_have_a_rate_of_its_own(make, ragged, lora):
    """Adam's first step is lr * sign(gradient), its second under a linear schedule of four the 3/4 of that at most."""
    how = {"optimizer": Optimization(lr=1e-4, schedule="linear", total=4), "lora": lora}
    model = with_head(make, head_lr=0.5, **how)
    columns = {"on": ragged.mask.float(), "target": torch.zeros(5, 6)}
    before = {name: p.detach().clone() for name, p in model._trained.items()}
    metrics = model.step(ragged, columns, head_loss, ("scores",))
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in model._trained.items()}
    assert moved.pop("value_head.weight") == pytest.approx(0.5, abs=1e-3)
    assert 0 < max(moved.values()) < 1.01e-4
    assert metrics["policy/lr"] == 1e-4
    again = with_head(make, seed=5, head_lr=0.5, **how)
    again.load_state_dict(copy.deepcopy(model.state_dict()))  # as through a file: the moments are not shared
    for one in (model, again):
        one.step(ragged, columns, head_loss, ("scores",))
    assert [group["lr"] for group in again._adamw.param_groups] == pytest.approx([0.75e-4, 0.375])
    assert all(torch.equal(p, again._trained[name]) for name, p in model._trained.items())


def test_a_rate_of_a_head_that_is_not_there_is_refused(make):
    with pytest.raises(InputError, match="`head_lr` is the rate of a value head, and this model has none"):
        make(head_lr=0.1)


def test_scores_need_a_head(make, ragged):
    with pytest.raises(InputError, match=r"scores were asked .* value_head=True"):
        make().outputs(ragged, ("scores",))


def test_a_reference_keeps_its_head_and_one_with_adapters_refuses(make, ragged):
    model = with_head(make)
    reference = model.reference()
    before = reference.outputs(ragged, ("scores",)).scores
    with torch.no_grad():
        model.head.weight.mul_(2)
    assert torch.equal(reference.outputs(ragged, ("scores",)).scores, before)
    shared = with_head(make, lora=Lora(rank=2)).reference()
    with pytest.raises(InputError, match="scores were asked of a reference that shares its weights"):
        shared.outputs(ragged, ("scores",))


class Seen:
    """A loss that notes which rows it gets together."""

    def __init__(self, whole):
        self.whole_groups, self.parts = whole, []

    def __call__(self, outputs, columns):
        self.parts.append(columns["row"].tolist())
        return outputs.logprobs


@pytest.mark.parametrize("packs", [True, False])
def test_whole_groups_are_never_cut(make, ragged, packs):
    """At 8 tokens no group of two fits; groups are {0, 1}, {2}, {3, 4}."""
    model = make(tokens_per_batch=8)
    model._packs = packs
    rows = {"row": torch.arange(5)}
    cut, whole = Seen(False), Seen(True)
    model.step(ragged, rows, cut)
    model.step(ragged, rows, whole)
    assert cut.parts == [[0], [1], [2], [3], [4]]
    assert whole.parts == [[0, 1], [2], [3, 4]]


def test_given_responses_share_their_prompt(make, problems):
    model = make()
    seq = model.tokenize_groups(problems, ["ab", "c", "", "d"], [0, 0, 1, 2], [True, False, True, True])
    assert len(seq.prompts) == 3
    assert seq.group.tolist() == [0, 0, 1, 2]
    assert seq.mask.sum(dim=1).tolist() == [3, 1, 1, 2]  # ab and its end, c cut off, an end alone, d and its end
    end = model.tokenizer.eos_token_id
    assert [seq.tokens[i, n - 1].item() == end for i, n in enumerate([3, 1, 1, 2])] == [True, False, True, True]
    alone = model.tokenize(problems[:1], ["ab"])
    assert alone.tokens[0].tolist() == seq.tokens[0].tolist()


def test_a_response_without_a_token_is_refused(make):
    with pytest.raises(InputError, match="problem 'p' has no token: it is empty and was cut off"):
        make().tokenize([Problem(id="p", prompt="1")], [""], [False])


def test_the_rows_of_a_group_may_not_be_scattered(make, problems):
    with pytest.raises(ValueError, match="ascend"):
        make().tokenize_groups(problems, ["a", "b", "c"], [0, 1, 0])


def test_tokens_say_what_text_they_add_and_how_many_more_fit(make, problems):
    model = make()
    seq = model.arrange(problems[:1], [model.response_tokens("ab"), model.response_tokens("c", ended=False)], [0, 0])
    assert model.pieces(seq) == (("a", "b", ""), ("c",))
    assert model.room(problems[0]) == 256 - 4  # the prompt 1+1= has four tokens
