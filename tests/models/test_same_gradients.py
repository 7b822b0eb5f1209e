"""The learner's packed pass against plain forward and backward passes, one response at a time."""

from __future__ import annotations

import families
import pytest
import torch
from torch import Tensor

from reckon.models import LanguageModel, Lora, Optimization, Sampling, tiny
from reckon.models._score import score
from reckon.types import Outputs, Sequences

ALL = [(name, False) for name in families.FAMILIES] + [(name, True) for name in families.WINDOWED]
EACH = pytest.mark.parametrize(("name", "windowed"), ALL, ids=[f"{n}-windowed" if w else n for n, w in ALL])
STILL = Optimization(lr=0.0, clip=None)
WANT = ("logprobs", "entropy", "values", "hidden")


def batch() -> Sequences:
    """Four groups: 4, 1, 3 and 2 answers of unequal lengths behind prompts of 5, 9, 1 and 14 tokens.

    Some tokens are given rather than sampled: at the start of one row and in the midst of another.
    """
    generator = torch.Generator().manual_seed(0)
    group = torch.tensor([0, 0, 0, 0, 1, 2, 2, 2, 3, 3])
    lengths = torch.tensor([6, 12, 6, 3, 12, 7, 1, 2, 11, 1])
    mask = torch.arange(13) < lengths[:, None]
    mask[5, :2] = False
    mask[8, 4:6] = False
    return Sequences(
        prompts=tuple(torch.randint(3, 99, (size,), generator=generator) for size in (5, 9, 1, 14)),
        group=group,
        tokens=torch.randint(3, 99, (10, 13), generator=generator),  # padding holds tokens too: it must not matter
        mask=mask,
    )


def weights(seq: Sequences, width: int = 32) -> dict[str, Tensor]:
    """What the loss multiplies each output with: another number for every token, so that none may be mistaken."""
    generator = torch.Generator().manual_seed(1)
    names = ("logprobs", "entropy", "values")
    columns = {name: torch.randn(seq.mask.shape, generator=generator) / 10 for name in names}
    return columns | {"hidden": torch.randn(*seq.mask.shape, width, generator=generator) / 100}


def loss(outputs: Outputs, columns) -> Tensor:
    """[n, T]: linear in log-probs, entropies and hidden states, squared in values."""
    total = torch.zeros(columns["logprobs"].shape)
    for name, by in columns.items():
        found = getattr(outputs, name)
        if found is not None:
            each = (
                (found * by).sum(-1) if name == "hidden" else (found + 1) ** 2 * by if name == "values" else found * by
            )
            total = total + each
    return total


def plain_outputs(model: LanguageModel, seq: Sequences) -> Outputs:
    """[N, T] of everything, from one forward pass of the network's own for each row."""
    found: dict[str, list[Tensor]] = {name: [] for name in WANT}
    for row in range(len(seq.mask)):
        logprobs, laws, hidden = families.plain_laws(model, seq, row)
        n, rest = len(logprobs), seq.mask.shape[1] - len(logprobs)
        each = {
            "logprobs": logprobs,
            "entropy": torch.distributions.Categorical(logits=laws).entropy(),
            "hidden": hidden[1:].float(),
        }
        if model.head is not None:
            each["values"] = model.head(hidden[:-1].float())[:, 0]
        for name, x in each.items():
            there = seq.mask[row, :n].view(n, *[1] * (x.dim() - 1))
            padded = torch.cat([torch.where(there, x, 0.0), x.new_zeros(rest, *x.shape[1:])])
            found[name].append(padded)
    return Outputs(**{name: torch.stack(rows) for name, rows in found.items() if rows})


def built(name: str, windowed: bool = False, **settings) -> LanguageModel:
    model = families.model(name, windowed=windowed, optimizer=STILL, **settings)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(2)
        if model.head is not None:
            model.head.weight.copy_(torch.randn(model.head.weight.shape, generator=generator))
        for where, parameter in model.network.named_parameters():
            if "lora_B" in where:  # at first zero, which would leave lora_A without a gradient
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def trained(model: LanguageModel) -> dict[str, Tensor]:
    found = {name: p for name, p in model.network.named_parameters() if p.requires_grad}
    return found | ({} if model.head is None else {"value_head": model.head.weight})


def gradients_of_a_step(model: LanguageModel, seq: Sequences, columns, want) -> tuple[float, dict[str, Tensor]]:
    """What the optimizer is handed."""
    seen: dict[str, Tensor] = {}

    def look(*_) -> None:
        seen.update({name: p.grad.clone() for name, p in trained(model).items() if p.grad is not None})

    handle = model._adamw.register_step_pre_hook(look)
    metrics = model.step(seq, columns, loss, want)
    handle.remove()
    assert metrics["policy/skipped"] == 0
    return metrics["policy/loss"], seen


def plain_gradients(model: LanguageModel, seq: Sequences, columns, want) -> tuple[float, dict[str, Tensor]]:
    outputs = plain_outputs(model, seq)
    value = loss(Outputs(**{name: getattr(outputs, name) for name in want}), columns).sum()
    parameters = trained(model)
    found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    return float(value.detach()), {name: g for name, g in zip(parameters, found, strict=True) if g is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Each parameter's within 1e-4 of its own norm; what is zero but for rounding, within 1e-6 of the norm of all."""
    assert found.keys() == expected.keys()
    whole = torch.cat([g.flatten() for g in expected.values()]).norm()
    assert whole > 0.1
    for name, theirs in expected.items():
        assert (found[name] - theirs).norm() <= 1e-4 * theirs.norm() + 1e-6 * whole, name


@EACH
def test_outputs_are_those_of_plain_passes(name, windowed):
    model, seq = built(name, windowed, value_head=True, sampling=Sampling(temperature=0.8)), batch()
    found = model.outputs(seq, WANT)
    with torch.no_grad():
        expected = plain_outputs(model, seq)
    for what in WANT:
        ours, theirs = getattr(found, what), getattr(expected, what)
        assert theirs.std() > 0.1
        assert bool((ours[~seq.mask] == 0).all())
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=lambda m, n=what: f"{n}: {m}")


@EACH
@pytest.mark.parametrize("budget", [1, 40, 1024])
def test_gradients_are_those_of_plain_passes(name, windowed, budget):
    """Of everything a loss may want at once; in one pass, in several micro-batches, and row by row."""
    model = built(name, windowed, value_head=True, tokens_per_batch=budget, sampling=Sampling(temperature=0.8))
    seq = batch()
    columns = weights(seq)
    total, found = gradients_of_a_step(model, seq, columns, WANT)
    value, expected = plain_gradients(model, seq, columns, WANT)
    assert total == pytest.approx(value, rel=1e-4)
    assert_same_gradients(found, expected)


@pytest.mark.parametrize("want", [("logprobs",), ("entropy",), ("values",), ("hidden",), ("logprobs", "values")])
def test_each_output_alone(want):
    model, seq = built("qwen3", value_head=True), batch()
    columns = weights(seq)
    total, found = gradients_of_a_step(model, seq, columns, want)
    value, expected = plain_gradients(model, seq, columns, want)
    assert total == pytest.approx(value, rel=1e-4)
    assert_same_gradients(found, expected)


@EACH
def test_gradients_of_adapters(name, windowed):
    """LoRA in all linear layers, in micro-batches; the weights themselves have none."""
    targets = ("c_attn", "c_proj", "c_fc") if name == "gpt2" else "all-linear"
    model = built(name, windowed, lora=Lora(rank=2, alpha=4, targets=targets), tokens_per_batch=40)
    seq = batch()
    columns = weights(seq)
    _, found = gradients_of_a_step(model, seq, columns, ("logprobs", "entropy"))
    _, expected = plain_gradients(model, seq, columns, ("logprobs", "entropy"))
    assert len(found) >= 12
    assert all("lora" in where for where in found)
    assert all(bool(g.norm() > 0) for g in found.values())
    assert_same_gradients(found, expected)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_rows_without_a_sampled_token_count_for_nothing(name):
    model, seq = built(name), batch()
    empty = Sequences(prompts=seq.prompts, group=seq.group, tokens=seq.tokens, mask=seq.mask.clone())
    empty.mask[[1, 4]] = False  # one among siblings and one alone in its group
    kept = [row for row in range(10) if row not in (1, 4)]
    full, found = model.outputs(seq).logprobs, model.outputs(empty).logprobs
    torch.testing.assert_close(found[kept], full[kept], rtol=1e-5, atol=1e-5)
    assert (found[[1, 4]] == 0).all()


def test_a_changed_token_is_seen_by_those_after_it_and_by_no_sibling():
    model, seq = built("llama"), batch()
    before = model.outputs(seq).logprobs
    tokens = seq.tokens.clone()
    tokens[2, 3] = (tokens[2, 3] + 11) % 90 + 3
    after = model.outputs(Sequences(prompts=seq.prompts, group=seq.group, tokens=tokens, mask=seq.mask)).logprobs
    moved = ((after - before).abs() > 1e-4).nonzero().tolist()
    assert moved == [[2, 3], [2, 4], [2, 5]]  # row 2 has 6 tokens


def test_gradients_with_answers_longer_than_a_block_of_queries():
    """Two answers of 150 and 131 tokens behind a prompt of 140."""
    generator = torch.Generator().manual_seed(3)
    seq = Sequences(
        prompts=(torch.randint(3, 99, (140,), generator=generator),),
        group=torch.tensor([0, 0]),
        tokens=torch.randint(3, 99, (2, 150), generator=generator),
        mask=torch.arange(150) < torch.tensor([[150], [131]]),
    )
    columns = weights(seq)
    model = built("qwen2", windowed=True)
    _, found = gradients_of_a_step(model, seq, columns, ("logprobs",))
    _, expected = plain_gradients(model, seq, columns, ("logprobs",))
    assert_same_gradients(found, expected)


def test_bfloat16_gradients_point_the_same_way():
    """Products of 8 bits through two layers of peaked attention: a few percent of the norm, in all families alike."""
    seq = batch()
    columns = weights(seq)
    for name in families.FAMILIES:
        _, exact = gradients_of_a_step(built(name), seq, columns, ("logprobs",))
        _, rounded = gradients_of_a_step(built(name, dtype="bfloat16"), seq, columns, ("logprobs",))
        one, other = (torch.cat([g.flatten() for g in found.values()]) for found in (exact, rounded))
        assert all(g.dtype == torch.float32 for g in rounded.values())
        gap = float((one - other).norm() / one.norm())
        print(f"{name}: bfloat16 gradients are off by {gap:.1%} of their norm")
        assert 1e-4 < gap < 0.1


@pytest.mark.parametrize("windowed", [False, True])
def test_a_step_makes_no_tensor_of_all_tokens_with_all_tokens(windowed):
    """L = 2,880 packed tokens: L x L is 8.3 million, a block of scores at most 1 million (reckon.models._attention)."""
    seq = Sequences(
        prompts=tuple(torch.arange(80) % 90 + 3 + i for i in range(2)),
        group=torch.arange(2).repeat_interleave(34),
        tokens=torch.arange(68 * 40).view(68, 40) % 90 + 3,
        mask=torch.ones(68, 40, dtype=torch.bool),
    )
    model = built("qwen2", windowed, tokens_per_batch=10_000)
    with families.Largest() as seen:
        model.step(seq, {"logprobs": torch.ones(68, 40)}, loss, ("logprobs",))
    assert seen.elements >= 2880 * 64  # it saw the network's widest layer
    assert seen.elements <= 1 << 20


def test_the_same_gradient_again_with_two_threads():
    """A thousand answers begin at one state of their prompt; what they hand back to it must be added in one order."""
    network = tiny.make_network(layers=1, width=64, heads=2, context=16)
    n = 1024
    generator = torch.Generator().manual_seed(0)
    seq = Sequences(
        prompts=(torch.tensor([3, 4, 5]),),
        group=torch.zeros(n, dtype=torch.int64),
        tokens=torch.randint(3, 20, (n, 1), generator=generator),
        mask=torch.ones(n, 1, dtype=torch.bool),
    )
    weigh = torch.randn(n, 1, generator=generator)

    def gradient() -> Tensor:
        network.zero_grad()
        found, _ = score(network, None, seq, ("logprobs",), temperature=1.0, dtype=torch.float32, packs=True)
        (found.logprobs * weigh).sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = gradient()
        assert first.abs().max() > 0
        assert all(torch.equal(first, gradient()) for _ in range(20))
    finally:
        torch.set_num_threads(threads)
