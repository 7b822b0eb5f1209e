"""The output layer against log_softmax and Categorical.entropy on whole logits, in values and in gradients."""

from __future__ import annotations

import families
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from reckon.models import _output
from reckon.models._output import Head, head_of, token_laws

M, D, V = 7, 5, 300


def plain(hidden, targets, head: Head, temperature: float) -> tuple[Tensor, Tensor]:
    logits = hidden @ head.weight.T
    if head.bias is not None:
        logits = logits + head.bias
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    laws = (logits / temperature).log_softmax(1)
    return laws[torch.arange(len(targets)), targets], torch.distributions.Categorical(logits=laws).entropy()


def made(*, bias=True, scale=1.0, softcap=None, seed=0) -> tuple[Tensor, Tensor, Head]:
    """Hidden states, targets (the first and last token of the vocabulary among them) and a head, in float64."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(n, D, generator=generator, dtype=torch.float64) for n in (M, V))
    targets = torch.randint(V, (M,), generator=generator)
    targets[0], targets[1], targets[2] = 0, V - 1, 64  # 64: the first of a second slice of 64
    of = torch.randn(V, generator=generator, dtype=torch.float64) if bias else None
    return hidden * 1.5, targets, Head(weight=weight, bias=of, scale=scale, softcap=softcap)


def in_float32(head: Head) -> Head:
    bias = None if head.bias is None else head.bias.float().detach().requires_grad_()
    weight = head.weight.float().detach().requires_grad_()
    return Head(weight=weight, bias=bias, scale=head.scale, softcap=head.softcap)


def gradients(laws, hidden: Tensor, head: Head, by: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Both results and the gradients of their sum weighted token by token."""
    logprobs, entropies = laws
    inputs = {"hidden": hidden, "weight": head.weight} | ({} if head.bias is None else {"bias": head.bias})
    total = (logprobs * by[0]).sum() + (entropies * by[1]).sum()
    found = torch.autograd.grad(total, list(inputs.values()))
    return {"logprobs": logprobs.detach(), "entropy": entropies.detach()} | dict(zip(inputs, found, strict=True))


WEIGHTS = (
    torch.linspace(-1, 2, M, dtype=torch.float64),
    torch.linspace(0.7, -0.4, M, dtype=torch.float64),
)


def both(*, temperature=1.0, dtype=torch.float32, **settings) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What token_laws finds and what float64 autograd on whole logits says."""
    hidden, targets, head = made(**settings)
    exact = Head(
        weight=head.weight.requires_grad_(),
        bias=None if head.bias is None else head.bias.requires_grad_(),
        scale=head.scale,
        softcap=head.softcap,
    )
    wide = hidden.clone().requires_grad_()
    expected = gradients(plain(wide, targets, exact, temperature), wide, exact, WEIGHTS)
    head, hidden = in_float32(exact), hidden.float().requires_grad_()
    laws = token_laws(hidden, targets, head, temperature=temperature, entropy=True, dtype=dtype)
    return gradients(laws, hidden, head, (WEIGHTS[0].float(), WEIGHTS[1].float())), expected


def test_by_hand():
    """Logits ln 1, ln 2, ln 5 of one token: probabilities 1/8, 2/8, 5/8."""
    hidden = torch.ones(1, 1, requires_grad=True)
    weight = torch.tensor([[1.0], [2.0], [5.0]]).log().requires_grad_()
    head = Head(weight=weight, bias=None)
    target = torch.tensor([1])
    logprobs, entropy = token_laws(hidden, target, head, temperature=1.0, entropy=True, dtype=torch.float32)
    assert logprobs.item() == pytest.approx(-1.3862944)  # ln 1/4
    assert entropy.item() == pytest.approx(0.9002561)  # (3 ln 2) / 8 + (2 ln 2) / 4 + 5/8 ln 8/5
    logprobs.sum().backward()
    assert weight.grad.flatten().tolist() == pytest.approx([-1 / 8, 3 / 4, -5 / 8])
    warm, _ = token_laws(hidden, target, head, temperature=2.0, entropy=False, dtype=torch.float32)
    assert warm.item() == pytest.approx(-1.1903542)  # ln(sqrt 2 / (1 + sqrt 2 + sqrt 5)) = ln(1.4142136 / 4.6502815)


@pytest.mark.parametrize("logits", [1, M * 64, M * 100, M * 299, 1 << 21])  # slices of 64, 64, 100, 299 and 300 tokens
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bias": False, "temperature": 0.6},
        {"scale": 0.3, "temperature": 1.7},
        {"softcap": 2.0},
        {"softcap": 3.0, "scale": 1.9, "temperature": 0.5},
    ],
)
def test_values_and_gradients(monkeypatch, logits, settings):
    monkeypatch.setattr(_output, "_LOGITS", logits)
    found, expected = both(**settings)
    assert found.keys() == expected.keys()
    for name, ours in found.items():
        assert ours.dtype == torch.float32
        gap = (ours.double() - expected[name]).norm() / expected[name].norm()
        assert gap < 4e-6, name  # float32 rounds by up to 6e-8, here of logits and log-probs up to 20 times the result


@pytest.mark.parametrize("settings", [{}, {"softcap": 3.0, "scale": 1.9, "temperature": 0.5}])
def test_bfloat16_is_close_to_float32(settings):
    """bfloat16 has 8 bits: a logit of 10 is off by up to 0.02, most by less; sums are float32."""
    found, expected = both(dtype=torch.bfloat16, **settings)
    assert all(ours.dtype == torch.float32 for ours in found.values())
    for name, ours in found.items():
        gap = (ours.double() - expected[name]).norm() / expected[name].norm()
        assert 1e-5 < gap < 1e-2, name  # the product was rounded, and by no more


@pytest.mark.parametrize("entropy", [True, False])
def test_entropy_only_where_it_is_wanted(entropy):
    """Without it: zeros, no gradient through it, and the same log-probs and gradients of log-probs."""
    hidden, targets, head = made()
    head, hidden = in_float32(head), hidden.float().requires_grad_()
    laws = token_laws(hidden, targets, head, temperature=1.0, entropy=entropy, dtype=torch.float32)
    assert bool((laws[1] == 0).all()) is not entropy
    found = gradients(laws, hidden, head, (WEIGHTS[0].float(), torch.zeros(M)))
    expected = gradients(plain(hidden, targets, head, 1.0), hidden, head, (WEIGHTS[0].float(), torch.zeros(M)))
    for name in ("logprobs", "hidden", "weight", "bias"):
        torch.testing.assert_close(found[name], expected[name], rtol=2e-5, atol=2e-6)


def test_a_gradient_of_the_entropy_alone():
    hidden, targets, head = made()
    inputs = [hidden.float().requires_grad_(), in_float32(head)]
    _, ours = token_laws(inputs[0], targets, inputs[1], temperature=1.0, entropy=True, dtype=torch.float32)
    _, theirs = plain(inputs[0], targets, inputs[1], 1.0)
    found, expected = (torch.autograd.grad(x.sum(), [inputs[0], inputs[1].weight]) for x in (ours, theirs))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-6)


def test_frozen_weights_have_no_gradient_and_change_nothing_else():
    """As under LoRA: the output layer stands still, and what comes before it learns all the same."""
    hidden, targets, head = made()
    free = in_float32(head)
    frozen = Head(weight=free.weight.detach(), bias=free.bias.detach())
    found = []
    for each in (free, frozen):
        state = hidden.float().requires_grad_()
        token_laws(state, targets, each, temperature=1.0, entropy=False, dtype=torch.float32)[0].sum().backward()
        found.append(state.grad)
    assert torch.equal(*found)
    assert free.weight.grad is not None
    assert frozen.weight.grad is None


def test_a_frozen_network_scores_with_gradients_off():
    hidden, targets, head = made()
    head = in_float32(head)
    with torch.no_grad():
        logprobs, _ = token_laws(hidden.float(), targets, head, temperature=1.0, entropy=False, dtype=torch.float32)
    assert not logprobs.requires_grad
    torch.testing.assert_close(logprobs, plain(hidden.float(), targets, head, 1.0)[0].detach(), rtol=2e-5, atol=2e-6)


def test_logits_of_a_thousand_do_not_overflow():
    hidden, targets, head = made()
    head, hidden = in_float32(head), hidden.float() * 300
    logprobs, entropy = token_laws(hidden, targets, head, temperature=1.0, entropy=True, dtype=torch.float32)
    exact = plain(hidden.double(), targets, Head(weight=head.weight.double(), bias=head.bias.double()), 1.0)
    assert exact[0].abs().max() > 1000
    torch.testing.assert_close(logprobs.double(), exact[0], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(entropy.double(), exact[1], rtol=1e-3, atol=2e-3)  # 2000 x 2^-24 a term


def test_no_tokens_are_no_laws():
    _, _, head = made()
    head = in_float32(head)
    hidden, none = torch.zeros(0, D, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    laws = token_laws(hidden, none, head, temperature=1.0, entropy=True, dtype=torch.float32)
    assert [len(x) for x in laws] == [0, 0]
    sum(x.sum() for x in laws).backward()
    assert head.weight.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_no_tensor_of_tokens_times_vocabulary(dtype, softcap):
    """600 tokens times a vocabulary of 20,000 is 12 million: nothing larger than 2 million is made."""
    tokens, vocabulary, width = 600, 20_000, 8
    hidden = torch.randn(tokens, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    head = Head(weight=weight, bias=torch.zeros(vocabulary, requires_grad=True), softcap=softcap)
    targets = torch.arange(tokens) * 33
    with families.Largest() as seen:
        logprobs, entropies = token_laws(hidden, targets, head, temperature=0.9, entropy=True, dtype=dtype)
        (logprobs.sum() + entropies.sum()).backward()
    assert seen.elements >= vocabulary * width  # it saw the gradient of the weight made
    assert seen.elements <= _output._LOGITS < tokens * vocabulary / 5
    with families.Largest() as seen:
        plain(hidden, targets, head, 0.9)[0].sum().backward()
    assert seen.elements == tokens * vocabulary  # the measure sees what it should


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        ("gemma2", {"head_dim": 8, "num_key_value_heads": 2, "final_logit_softcapping": 7.0}, (1.0, 7.0)),
        ("granite", {"num_key_value_heads": 2, "logits_scaling": 4.0}, (0.25, None)),
        ("cohere", {"num_key_value_heads": 2, "logit_scale": 0.125}, (0.125, None)),
        ("llama", {}, (1.0, None)),
    ],
)
def test_the_head_is_the_networks_own(family, settings, expected):
    sizes = {"vocab_size": 90, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **sizes | {"intermediate_size": 32} | settings)
    network = AutoModelForCausalLM.from_config(config).eval()
    head = head_of(network)
    assert (head.scale, head.softcap) == expected
    ids = torch.arange(5)[None] + 3
    with torch.no_grad():
        network.get_output_embeddings().weight.mul_(20)  # far enough for a cap to bend
        hidden = network.base_model(input_ids=ids)[0][0]
        logits = network(input_ids=ids).logits[0]
        torch.testing.assert_close(head.logits(hidden, torch.float32), logits, rtol=1e-5, atol=1e-5)


def test_an_output_layer_of_another_kind_is_refused():
    network = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
    )
    network.set_output_embeddings(nn.Bilinear(2, 2, 2))
    with pytest.raises(TypeError, match="a Bilinear, not a linear layer"):
        head_of(network)
