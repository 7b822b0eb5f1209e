"""The sampler against `transformers.generate`, plain forward passes and the law it should draw from."""

from __future__ import annotations

import families
import pytest
import torch
from scipy import stats

from reckon.models import LanguageModel, Sampling
from reckon.models.tiny import ALPHABET
from reckon.types import End, Problem, Rng, Rollouts

ALL = [(name, False) for name in families.FAMILIES] + [(name, True) for name in families.WINDOWED]
EACH = pytest.mark.parametrize(("name", "windowed"), ALL, ids=[f"{n}-windowed" if w else n for n, w in ALL])
UNEQUAL = ("1+1=", "a much longer prompt than that: ", "x", "12", "a much longer prompt than this: ")


def drawn_problems(n: int, lengths: range, seed: int = 0) -> list[Problem]:
    """n random prompts of these lengths in turn."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i in range(n):
        size = lengths[i % len(lengths)]
        text = "".join(ALPHABET[j] for j in torch.randint(1, 96, (size,), generator=generator).tolist())
        found.append(Problem(id=str(i), prompt=text))
    return found


def unequal() -> list[Problem]:
    return [Problem(id=str(i), prompt=text) for i, text in enumerate(UNEQUAL)]


def sampled(rollouts: Rollouts, row: int) -> list[int]:
    return rollouts.seq.tokens[row][rollouts.seq.mask[row]].tolist()


def same_rows(found: Rollouts, expected: Rollouts) -> None:
    assert found.text == expected.text
    assert found.end.tolist() == expected.end.tolist()
    assert torch.equal(found.seq.tokens, expected.seq.tokens)
    assert torch.equal(found.seq.mask, expected.seq.mask)
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=1e-4, atol=1e-4)


def generated(model: LanguageModel, prompts: list[torch.Tensor]) -> list[list[int]]:
    """transformers' own greedy texts: prompts of one length at a time, so that nothing is padded on the left."""
    out: list[list[int]] = [[] for _ in prompts]
    eos = model.tokenizer.eos_token_id
    for size in {len(prompt) for prompt in prompts}:
        rows = [i for i, prompt in enumerate(prompts) if len(prompt) == size]
        ids = torch.stack([prompts[i] for i in rows])
        texts = model.network.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=model.sampling.max_new_tokens,
            do_sample=False,
            pad_token_id=0,
        )[:, size:].tolist()
        for i, text in zip(rows, texts, strict=True):
            out[i] = text[: text.index(eos) + 1] if eos in text else text
    return out


def gap_of_the_best(model: LanguageModel, prompt: torch.Tensor, text: list[int]) -> float:
    """How far apart the two likeliest tokens' logits are after this text, by a plain forward pass."""
    with torch.no_grad():
        logits = model.network(input_ids=torch.cat([prompt, torch.tensor(text, dtype=torch.int64)])[None]).logits
    best = logits[0, -1].topk(2).values
    return float(best[0] - best[1])


def different_greedy_texts(model: LanguageModel, problems: list[Problem]) -> tuple[int, Rollouts]:
    """How many differ, each only where the two best logits nearly tie; and what was found."""
    rollouts = model.greedy(problems)
    expected = generated(model, list(rollouts.seq.prompts))
    different = 0
    for row, theirs in enumerate(expected):
        ours = sampled(rollouts, row)
        if ours != theirs:
            different += 1
            same = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
            assert gap_of_the_best(model, rollouts.seq.prompts[row], ours[:same]) < 1e-4
    return different, rollouts


@pytest.mark.parametrize("name", families.FAMILIES)
def test_200_greedy_texts_equal_those_of_generate(name):
    """Prompts of 1 to 20 tokens, answers of up to 24, of which some end before."""
    model = families.model(name, sampling=Sampling(max_new_tokens=24))
    different, rollouts = different_greedy_texts(model, drawn_problems(200, range(1, 21)))
    print(f"{name}: {different} of 200 greedy texts differ")
    assert different <= 2
    assert len(set(rollouts.text)) > 100  # the prompt decides, so equality says something
    assert len({token for row in range(200) for token in sampled(rollouts, row)}) > 30
    assert End.EOS in rollouts.end.tolist()


@pytest.mark.parametrize("name", families.WINDOWED)
def test_greedy_texts_equal_those_of_generate_where_the_window_is_short(name):
    """A window of 10 tokens; prompts of 1, 7, 10 and 17 tokens and answers of up to 24 leave it behind."""
    model = families.model(name, windowed=True, sampling=Sampling(max_new_tokens=24))
    problems = [p for size in (1, 7, 10, 17) for p in drawn_problems(8, range(size, size + 1), seed=size)]
    different, rollouts = different_greedy_texts(model, problems)
    assert different == 0
    assert len(set(rollouts.text)) > 20


@EACH
def test_logprobs_are_those_of_a_plain_forward(name, windowed):
    """What the sampler and the learner say, against each response by itself behind its prompt."""
    model = families.model(name, windowed=windowed, sampling=Sampling(max_new_tokens=16, temperature=0.9))
    rollouts = model.sample(unequal(), 3, Rng((1,)))
    learner = model.outputs(rollouts.seq).logprobs
    far = 0.0
    for row in range(len(rollouts.text)):
        there = rollouts.seq.mask[row]
        with torch.no_grad():
            expected = families.plain_laws(model, rollouts.seq, row)[0]
        torch.testing.assert_close(rollouts.logprobs[row][there], expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(learner[row][there], expected, rtol=0, atol=1e-4)
        far = max(far, float(expected.std()) if len(expected) > 1 else 0.0)
    assert far > 0.5  # tokens differ in how likely they are


@EACH
def test_what_a_row_says_does_not_depend_on_how_many_are_in_flight(name, windowed):
    """Fifteen rows of five prompts, which end at unequal times: 1, 2, 3, 7 or all of them at once."""
    model = families.model(name, windowed=windowed, sampling=Sampling(max_new_tokens=14, stop_token_ids=(40, 41, 42)))
    limits = [3, 14, 9, 1, 14, 14, 7, 14, 2, 14, 14, 1, 14, 5, 14]
    whole = model.sample(unequal(), 3, Rng((4,)), limits=limits)
    lengths = whole.seq.mask.sum(dim=1).tolist()
    assert len(set(lengths)) >= 4
    assert len(set(whole.text)) > 7
    for rows, tokens in ((1, 1), (2, 1024), (3, 5), (7, 1024), (64, 40)):
        model.rows_per_batch, model.tokens_per_batch = rows, tokens
        same_rows(model.sample(unequal(), 3, Rng((4,)), limits=limits), whole)


@pytest.mark.parametrize("rows", [2, 5, 64])
def test_what_a_row_says_does_not_depend_on_its_companions(rows):
    """The first problem alone, with others behind it, and its first answers without the later ones."""
    model = families.model("llama", rows_per_batch=rows)
    together = model.sample(unequal(), 4, Rng((7,)))
    alone = model.sample(unequal()[:1], 4, Rng((7,)))
    fewer = model.sample(unequal(), 2, Rng((7,)))
    assert alone.text == together.text[:4]
    assert fewer.text == tuple(text for i, text in enumerate(together.text) if i % 4 < 2)
    assert len(set(together.text)) == 20  # and other numbers say other things,
    assert model.sample(unequal(), 4, Rng((8,))).text != together.text  # by row and by seed


def test_a_limit_cuts_a_row_and_no_other():
    model = families.model("qwen2", sampling=Sampling(max_new_tokens=10, ignore_eos=True), rows_per_batch=4)
    free = model.sample(unequal(), 2, Rng((2,)))
    limits = [1, 10, 99, 4, 2, 7, 1, 1, 10, 3]
    cut = model.sample(unequal(), 2, Rng((2,)), limits=limits)
    for row, limit in enumerate(limits):
        assert sampled(cut, row) == sampled(free, row)[:limit]
        assert len(sampled(free, row)) == 10
    assert set(cut.end.tolist()) == {End.LENGTH}
    tight = model.sample(unequal(), 2, Rng((2,)), limits=[1] * 10)
    assert [sampled(tight, row) for row in range(10)] == [sampled(free, row)[:1] for row in range(10)]


@pytest.mark.parametrize("ignored", [False, True])
def test_end_tokens_may_be_ignored(ignored):
    """All laws uniform over 99 tokens, one of which ends: 60 rows of 40 tokens hold about 20 of them."""
    model = families.model("llama", sampling=Sampling(max_new_tokens=40, ignore_eos=ignored), rows_per_batch=16)
    with torch.no_grad():
        model.network.lm_head.weight.zero_()
    eos = model.tokenizer.eos_token_id
    rollouts = model.sample(unequal()[:1], 60, Rng((0,)))
    holding = 0
    for row in range(60):
        tokens = sampled(rollouts, row)
        holding += eos in tokens
        if ignored:
            assert len(tokens) == 40
            assert rollouts.end[row] == End.LENGTH
        else:
            assert eos not in tokens[:-1]
            assert rollouts.end[row] == (End.EOS if tokens[-1] == eos else End.LENGTH)
    assert 10 < holding < 40  # 60 (1 - (98/99)^40) = 20


def test_stop_tokens_end_a_row_and_belong_to_it():
    """Two of 99 tokens of a uniform law stop; the end token still ends, and where one token is both, it is an end."""
    model = families.model("llama", sampling=Sampling(max_new_tokens=40), rows_per_batch=16)
    with torch.no_grad():
        model.network.lm_head.weight.zero_()
    eos = model.tokenizer.eos_token_id
    model.sampling = Sampling(max_new_tokens=40, stop_token_ids=(50, 60, eos))
    rollouts = model.sample(unequal()[:1], 100, Rng((0,)))
    for row in range(100):
        tokens = sampled(rollouts, row)
        assert not {50, 60, eos} & set(tokens[:-1])
        kinds = {50: End.STOP, 60: End.STOP, eos: End.EOS}
        assert rollouts.end[row] == kinds.get(tokens[-1], End.LENGTH)
    assert set(rollouts.end.tolist()) == {End.EOS, End.STOP, End.LENGTH}
    model.sampling = Sampling(max_new_tokens=40, stop_token_ids=(50, eos), ignore_eos=True)
    rollouts = model.sample(unequal()[:1], 100, Rng((0,)))
    assert {sampled(rollouts, row)[-1] for row in range(100) if rollouts.end[row] == End.STOP} == {50, eos}
    assert End.EOS not in rollouts.end.tolist()


@EACH
def test_prefixes_are_read_as_if_they_were_prompt(name, windowed):
    """Of other lengths, behind prompts of other lengths, few rows at a time."""
    model = families.model(name, windowed=windowed, rows_per_batch=3)
    given = ["12", "", "x y z = ", "7", ""]
    tokens = [model.tokenizer(text)["input_ids"] if text else [] for text in given]
    rollouts = model.sample(unequal(), 2, Rng((3,)), prefixes=tokens)
    longer = [Problem(id=str(i), prompt=p + g) for i, (p, g) in enumerate(zip(UNEQUAL, given, strict=True))]
    expected = model.sample(longer, 2, Rng((3,)))
    for row in range(10):
        assert sampled(rollouts, row) == sampled(expected, row)
        size = len(tokens[row // 2])
        assert rollouts.seq.tokens[row][:size].tolist() == tokens[row // 2]
        assert not rollouts.seq.mask[row][:size].any()
        with torch.no_grad():
            plain = families.plain_laws(model, rollouts.seq, row)[0][size:]
        torch.testing.assert_close(rollouts.logprobs[row][rollouts.seq.mask[row]], plain, rtol=0, atol=1e-4)


def frequencies(tokens: list[int], law: torch.Tensor) -> float:
    """The chi-square p of draws: the law's 50 likeliest tokens, as far as 5 of a kind are expected, and the rest."""
    order = law.argsort(descending=True)
    kinds = min(50, int((law[order] * len(tokens) > 5).sum()))
    counts = torch.bincount(torch.tensor(tokens), minlength=len(law))[order].double()
    found, expected = (torch.cat([x[:kinds], x[kinds:].sum()[None]]) for x in (counts, law[order] * len(tokens)))
    if expected[-1] < 1e-6:  # nothing is left over where all others are truncated
        found, expected = found[:-1], expected[:-1]
    assert kinds > 10
    return float(stats.chisquare(found.numpy(), expected.numpy()).pvalue)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {"temperature": 2.0}),
        ("gemma2", {"temperature": 1.6}),
        ("gpt2", {}),
        ("llama", {"top_k": 30}),
        ("qwen3", {"top_p": 0.95, "temperature": 1.3}),
    ],
)
def test_sampled_frequencies_follow_the_plain_law(name, settings):
    """10,000 draws of a first and a second token; the second's law is that after the commonest first one."""
    sampling = Sampling(max_new_tokens=2, ignore_eos=True, **settings)
    model = families.model(name, sampling=sampling, rows_per_batch=2500)
    rollouts = model.sample(unequal()[:1], 10_000, Rng((20,)))
    rows = rollouts.seq.tokens.tolist()
    prompt = rollouts.seq.prompts[0]
    second = [row for row in rows if row[0] == rollouts.seq.tokens[:, 0].mode().values]
    assert len(second) > 500
    for tokens, before in (([row[0] for row in rows], []), ([row[1] for row in second], second[0][:1])):
        with torch.no_grad():
            logits = model.network(input_ids=torch.tensor([prompt.tolist() + before])).logits[0, -1].double()
        law = (logits / model.sampling.temperature).softmax(0)
        order = law.argsort(descending=True)
        if model.sampling.top_k:
            law[order[30:]] = 0
        if model.sampling.top_p:
            law[order[1:][law[order].cumsum(0)[:-1] >= 0.95]] = 0
        assert all(law[token] > 0 for token in tokens)
        p = frequencies(tokens, law / law.sum())
        print(f"{name} {settings}, {len(tokens)} draws: p = {p:.3f}")
        assert p > 1e-3


@EACH
def test_bfloat16_logprobs_of_sampler_and_learner_are_close(name, windowed):
    """The gap that a ratio would carry if the sampler's log-probs served as the old ones: a few hundredths."""
    model = families.model(name, windowed=windowed, dtype="bfloat16", sampling=Sampling(max_new_tokens=24))
    rollouts = model.sample(drawn_problems(20, range(1, 21)), 4, Rng((1,)))
    mask = rollouts.seq.mask
    gap = (model.outputs(rollouts.seq).logprobs - rollouts.logprobs)[mask].abs()
    exact = LanguageModel(model.network, model.tokenizer, sampling=model.sampling, dtype="float32", device="cpu")
    rounding = (exact.outputs(rollouts.seq).logprobs - rollouts.logprobs)[mask].abs()
    print(f"{name} bfloat16: sampler and learner differ by {gap.mean():.1e} on average, by {gap.max():.1e} at most")
    assert gap.mean() < 0.03
    assert gap.max() < 0.5
    assert 1e-4 < rounding.mean() < 0.05  # bfloat16 was used, and both are near what float32 says
