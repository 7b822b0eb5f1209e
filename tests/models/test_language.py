"""The language model against Hugging Face's own plain forward pass and generation."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from reckon.errors import InputError
from reckon.models import Lora, Optimization, Sampling
from reckon.models._pack import micro_batches
from reckon.types import End, Outputs, Problem, Rng, Sequences


def plain_logprobs(model, seq: Sequences, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One response by itself behind its prompt: log-probs and logits at its tokens, the slow and obvious way."""
    prompt = seq.prompts[int(seq.group[row])]
    response = seq.tokens[row][seq.mask[row]]
    logits = model.network(input_ids=torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
    laws = (logits.float() / model.sampling.temperature).log_softmax(-1)
    return laws.gather(1, response[:, None]).squeeze(1), laws


def nll(outputs: Outputs, columns) -> torch.Tensor:
    return -outputs.logprobs * columns["scale"]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_groups_give_what_each_response_gives_alone(make, ragged, temperature):
    model = make(sampling=Sampling(temperature=temperature))
    found = model.outputs(ragged, ("logprobs", "entropy", "hidden"))
    for row in range(5):
        expected, laws = plain_logprobs(model, ragged, row)
        there = ragged.mask[row]
        torch.testing.assert_close(found.logprobs[row][there], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.entropy[row][there], torch.distributions.Categorical(logits=laws).entropy())
        assert (found.logprobs[row][~there] == 0).all()
    prompt, response = ragged.prompts[1], ragged.tokens[2][:1]
    hidden = model.network(input_ids=torch.cat([prompt, response])[None], output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(found.hidden[2, 0], hidden[0, -1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 13, 10_000])
def test_a_step_does_not_depend_on_how_the_batch_is_cut(make, ragged, budget):
    scale = {"scale": ragged.mask / ragged.mask.sum()}
    whole = make(optimizer=Optimization(lr=1e-3))
    cut = make(optimizer=Optimization(lr=1e-3), tokens_per_batch=budget)
    assert torch.cat(micro_batches(ragged, budget)).tolist() == [0, 1, 2, 3, 4]
    a, b = whole.step(ragged, scale, nll), cut.step(ragged, scale, nll)
    assert a["policy/loss"] == pytest.approx(b["policy/loss"], rel=1e-5)
    assert a["policy/grad_norm"] == pytest.approx(b["policy/grad_norm"], rel=1e-5)


def test_gradients_equal_those_of_the_plain_pass(make, ragged):
    model = make(optimizer=Optimization(lr=1.0, clip=None))
    plain = make()
    loss = -sum(plain_logprobs(plain, ragged, row)[0].sum() for row in range(5)) / ragged.mask.sum()
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in plain.network.parameters()]).norm()
    metrics = model.step(ragged, {"scale": ragged.mask / ragged.mask.sum()}, nll)
    assert metrics["policy/loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["policy/grad_norm"] == pytest.approx(float(expected), rel=1e-5)


def test_padding_and_order_of_groups_change_nothing(make, ragged):
    model = make()
    wide = Sequences(
        prompts=ragged.prompts,
        group=ragged.group,
        tokens=torch.cat([ragged.tokens, torch.full((5, 7), 5)], dim=1),
        mask=torch.cat([ragged.mask, torch.zeros(5, 7, dtype=torch.bool)], dim=1),
    )
    base = model.outputs(ragged).logprobs
    torch.testing.assert_close(model.outputs(wide).logprobs[:, :6], base, rtol=1e-5, atol=1e-6)
    turned = Sequences(
        prompts=ragged.prompts[::-1],
        group=2 - ragged.group.flip(0),
        tokens=ragged.tokens.flip(0),
        mask=ragged.mask.flip(0),
    )
    torch.testing.assert_close(model.outputs(turned).logprobs.flip(0), base, rtol=1e-5, atol=1e-6)


def test_sampled_logprobs_are_the_learners(make, problems):
    model = make(sampling=Sampling(max_new_tokens=12, temperature=0.8))
    rollouts = model.sample(problems, 4, Rng((1,)))
    torch.testing.assert_close(model.outputs(rollouts.seq).logprobs, rollouts.logprobs, rtol=1e-4, atol=1e-4)
    assert (rollouts.logprobs[~rollouts.seq.mask] == 0).all()
    assert not rollouts.truncated


def test_greedy_equals_hugging_face_generate(make, problems):
    model = make()
    rollouts = model.greedy(problems)
    for row, problem in enumerate(problems):
        ids = model.tokenizer(problem.prompt, return_tensors="pt")
        out = model.network.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
        expected = out[0, ids["input_ids"].shape[1] :].tolist()
        assert rollouts.seq.tokens[row][rollouts.seq.mask[row]].tolist() == expected


def test_a_row_says_the_same_in_any_company(make, problems):
    model = make()
    together = model.sample(problems, 3, Rng((7,)))
    alone = model.sample(problems[:1], 3, Rng((7,)))
    assert alone.text == together.text[:3]
    assert len(set(together.text)) > 3  # rows do differ, so the line above says something


def test_end_stop_and_length(make, problems):
    model = make()
    eos = model.tokenizer.eos_token_id
    with torch.no_grad():
        model.network.lm_head.weight.zero_()
    # All logits equal: draws are uniform over 99 tokens, so 200 rows of 40 tokens hold every kind of ending.
    model.sampling = Sampling(max_new_tokens=40, stop=("7", "ab"))
    rollouts = model.sample(problems[:1], 200, Rng((0,)))
    for row, text in enumerate(rollouts.text):
        tokens = rollouts.seq.tokens[row][rollouts.seq.mask[row]].tolist()
        assert eos not in tokens[:-1]
        assert "".join(rollouts.pieces[row]) == text
        stopped = "7" in text or "ab" in text
        expected = End.EOS if tokens[-1] == eos else End.STOP if stopped else End.LENGTH
        assert rollouts.end[row] == expected
        if stopped:
            assert text.endswith(("7", "ab"))
        if expected == End.LENGTH:
            assert len(tokens) == 40
    assert set(rollouts.end.tolist()) == {0, 1, 2}


def test_prefixes_are_given_not_sampled(make, problems):
    model = make()
    digits = model.tokenizer("12")["input_ids"]
    rollouts = model.sample(problems, 2, Rng((3,)), prefixes=[digits, [], digits])
    assert [text.startswith("12") for text in rollouts.text] == [True, True, False, False, True, True]
    assert rollouts.seq.mask[0, :3].tolist() == [False, False, True]
    longer = replace(problems[0], prompt=problems[0].prompt + "12")
    expected = model.sample([longer], 2, Rng((3,)))
    assert rollouts.text[:2] == tuple("12" + text for text in expected.text)
    torch.testing.assert_close(model.outputs(rollouts.seq).logprobs, rollouts.logprobs, rtol=1e-4, atol=1e-4)


def test_a_prompt_that_leaves_no_room_is_refused(make):
    with pytest.raises(InputError, match=r"'long' has 250 tokens.*max_new_tokens` 12.*context of 256"):
        make().sample([Problem(id="long", prompt="x" * 250)], 1, Rng((0,)))


def test_a_response_that_leaves_the_context_is_refused(make):
    problem = Problem(id="long", prompt="x" * 250)
    assert make().tokenize([problem], ["12345"]).tokens.shape == (1, 6)  # 250, 5 and the end: just 256
    with pytest.raises(InputError, match=r"'long' .* have 250 and 7 tokens, together more than .* context of 256"):
        make().tokenize([problem], ["123456"])


@pytest.mark.parametrize(
    ("prompt", "match"),
    [("", "'p' is empty"), (({"role": "user", "content": "hi"},), "is a chat, but this model's tokenizer has no chat")],
)
def test_prompts_the_model_cannot_read(make, prompt, match):
    with pytest.raises(InputError, match=match):
        make().sample([Problem(id="p", prompt=prompt)], 1, Rng((0,)))


def test_chat_templates_and_system_messages(make):
    model = make(sampling=Sampling(max_new_tokens=1, system="S"))
    each = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    model.tokenizer.chat_template = each + "{% if add_generation_prompt %}>{% endif %}"
    chat = ({"role": "system", "content": "own"}, {"role": "user", "content": "q"})
    rollouts = model.greedy([Problem(id="a", prompt="q"), Problem(id="b", prompt=chat)])
    assert [model.tokenizer.decode(p) for p in rollouts.seq.prompts] == ["[system]S[user]q>", "[system]own[user]q>"]


def test_a_chat_template_may_refuse(make):
    model = make(sampling=Sampling(max_new_tokens=1, system="S"))
    model.tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(InputError, match="refuses the prompt of problem 'a': System role not supported"):
        model.greedy([Problem(id="a", prompt="q")])


def test_a_gradient_that_is_not_finite_makes_no_step(make, ragged):
    model = make()
    before = {name: p.clone() for name, p in model.network.named_parameters()}
    metrics = model.step(ragged, {"scale": ragged.mask * torch.inf}, nll)
    assert metrics["policy/skipped"] == 1
    assert all(torch.equal(p, before[name]) for name, p in model.network.named_parameters())


def test_resumed_learning_is_bit_for_bit(make, ragged):
    scale = {"scale": ragged.mask / ragged.mask.sum()}
    straight = make(optimizer=Optimization(lr=1e-2, warmup=2))
    for _ in range(2):
        straight.step(ragged, scale, nll)
    saved = copy.deepcopy(straight.state_dict())
    straight.step(ragged, scale, nll)
    resumed = make(optimizer=Optimization(lr=1e-2, warmup=2))
    resumed.load_state_dict(saved)
    resumed.step(ragged, scale, nll)
    for a, b in zip(straight.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_models_checkpoint_is_refused(make):
    with pytest.raises(InputError, match="checkpoint is of another model"):
        make().load_state_dict({"steps": 0, "weights": {"other": torch.zeros(1)}, "adamw": {}})


def test_lora_of_layers_that_are_not_there(make):
    with pytest.raises(InputError, match=r"`lora\.targets` is \('nosuch',\).*linear layers .*: down_proj, .*q_proj"):
        make(lora=Lora(targets=("nosuch",)))


def test_lora_learns_adapters_only_and_its_reference_is_the_start(make, ragged, tmp_path):
    model = make(lora=Lora(rank=2, alpha=4), optimizer=Optimization(lr=1e-1))
    start = make().outputs(ragged).logprobs
    reference = model.reference()
    torch.testing.assert_close(model.outputs(ragged).logprobs, start)
    weight = model.network.lm_head.weight.clone()
    model.step(ragged, {"scale": ragged.mask / ragged.mask.sum()}, nll)
    model.step(ragged, {"scale": ragged.mask / ragged.mask.sum()}, nll)
    learned = model.outputs(ragged).logprobs
    assert (learned - start).abs().max() > 1e-2
    torch.testing.assert_close(reference.outputs(ragged).logprobs, start)
    assert torch.equal(model.network.lm_head.weight, weight)
    assert all("lora" in name for name in model.state_dict()["weights"])

    from reckon.models import load_model

    model.save_pretrained(tmp_path)
    torch.testing.assert_close(model.outputs(ragged).logprobs, learned)  # saving left the live model as it was
    merged = load_model(str(tmp_path), dtype="float32", device="cpu")
    torch.testing.assert_close(merged.outputs(ragged).logprobs, learned, rtol=1e-4, atol=1e-4)


def test_a_full_models_reference_stays_behind(make, ragged):
    model = make(optimizer=Optimization(lr=1e-1))
    reference, start = model.reference(), model.outputs(ragged).logprobs
    model.step(ragged, {"scale": ragged.mask / ragged.mask.sum()}, nll)
    torch.testing.assert_close(reference.outputs(ragged).logprobs, start)
    assert (model.outputs(ragged).logprobs - start).abs().max() > 1e-2


def test_a_references_values_stay_behind_too(make, ragged):
    def squared(outputs: Outputs, columns) -> torch.Tensor:
        return (outputs.values - 1) ** 2 * columns["mask"]

    model = make(value_head=True, optimizer=Optimization(lr=1e-2))
    reference = model.reference()
    model.step(ragged, {"mask": ragged.mask}, squared, ("values",))
    assert (model.outputs(ragged, ("values",)).values != 0).any()
    assert (reference.outputs(ragged, ("values",)).values == 0).all()
    with pytest.raises(InputError, match=r"shares its weights \(LoRA\)"):
        make(value_head=True, lora=Lora(rank=2)).reference().outputs(ragged, ("values",))


def test_values_are_zero_at_first_and_learn(make, ragged):
    model = make(value_head=True, optimizer=Optimization(lr=1e-2))
    target = torch.where(ragged.mask, 1.0, 0.0)

    def squared(outputs: Outputs, columns) -> torch.Tensor:
        return (outputs.values - columns["target"]) ** 2

    assert (model.outputs(ragged, ("values",)).values == 0).all()
    first = model.step(ragged, {"target": target}, squared, ("values",))["policy/loss"]
    assert first == pytest.approx(17.0)  # 17 sampled tokens, each (0 - 1)^2
    for _ in range(30):
        last = model.step(ragged, {"target": target}, squared, ("values",))["policy/loss"]
    assert last < 2
    with pytest.raises(InputError, match="without a value head"):
        make().outputs(ragged, ("values",))


def test_tokenized_responses_end_and_read_back(make, problems):
    model = make()
    seq = model.tokenize(problems, ["42", "", "long answer"])
    assert seq.tokens[1].tolist()[0] == model.tokenizer.eos_token_id
    assert seq.mask.sum(dim=1).tolist() == [3, 1, 12]
    assert model.tokenizer.decode(seq.tokens[2][seq.mask[2]], skip_special_tokens=True) == "long answer"


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_activation_checkpointing_changes_memory_and_nothing_else(make, lora):
    """Layers are computed again in the backward pass: more calls of their parts, the same gradient."""
    found = []
    for on in (False, True):
        model = make(lora=lora, activation_checkpointing=on)
        seq = model.sample([Problem(id="a", prompt="1+1=")], 3, Rng((0,))).seq
        calls = 0

        def count(*_):
            nonlocal calls
            calls += 1

        part = next(module for name, module in model.network.named_modules() if name.endswith("layers.1.self_attn"))
        part.register_forward_hook(count)
        metrics = model.step(seq, {"scale": seq.mask / seq.mask.sum()}, lambda out, c: -out.logprobs * c["scale"])
        found.append((metrics["policy/grad_norm"], calls, model.state_dict()["weights"]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert (found[0][1], found[1][1]) == (1, 2)
    for name, weight in found[0][2].items():
        torch.testing.assert_close(found[1][2][name], weight, rtol=1e-5, atol=1e-7)
