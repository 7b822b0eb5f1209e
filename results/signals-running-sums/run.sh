#!/usr/bin/env bash
# What three judges of SmolLM2-135M's running sums are worth: everything in this folder, from nothing. A stage whose
# result is there is not repeated, so a run that was stopped goes on. From the repository's folder, reckon installed:
#
#     bash results/signals-running-sums/run.sh
#
# Problems: the policy is warmed up on those of seed 0, judges learn from those of seeds 1 and 2, and are held against
# 200 of the test split, which shares no multiset of numbers with any of them.
set -euo pipefail

here=results/signals-running-sums
work=${WORK:-runs/signals-running-sums} # models and rollouts that are not committed
sums=(--task running_sums 'count=[5,5]' 'size=[1,50]')
sampling=(sampling.temperature=1 sampling.max_new_tokens=80)
mkdir -p "$work"

# 1. A policy that can do it at all: 160 worked examples, learning rate 3e-5.
if [ ! -e "$work/worked.jsonl" ]; then
    python - "$work/worked.jsonl" <<'PYTHON'
import json
import sys

from reckon.tasks import RunningSums

task = RunningSums(count=(5, 5), size=(1, 50))
rows = [{"prompt": problem.prompt, "completion": task.solution(problem)} for problem in task.problems("train")[:160]]
with open(sys.argv[1], "w", encoding="utf-8") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
PYTHON
fi
policy=$work/policy/model
[ -e "$policy" ] || reckon fit sft --data "$work/worked.jsonl" --model smollm2-135m --out "$work/policy" --overwrite \
    lr=3e-5 epochs=1 batch=8 dev=0 schedule=constant

# 2. What is judged: 16 responses to each of 200 problems of the test split.
[ -e "$work/test.parquet" ] || reckon eval "$policy" "${sums[@]}" "${sampling[@]}" --split test --n 200 --k 16 \
    --sample --out "$work/test.parquet"

# 3. What judges learn from: 800 whole responses with verdicts, or 3,080 rollouts that label prefixes.
[ -e "$work/train.parquet" ] || reckon eval "$policy" "${sums[@]}" seed=1 "${sampling[@]}" --split train --n 100 --k 8 \
    --sample --seed 1 --out "$work/train.parquet"
[ -e "$work/labels/labels.parquet" ] || reckon label "$policy" "${sums[@]}" seed=2 "${sampling[@]}" --split train --n 70 \
    --n-cov 4 --n-mc 2 --budget 4000 --seed 2 --out "$work/labels"

# 4. The judges, all from the policy's weights, one pass with the same settings. A value head begins at zero and has a
# rate of its own.
fit=(--model "$policy" --overwrite lr=2e-5 batch=16 together=true)
[ -e "$work/implicit/model" ] || reckon fit implicit-ce --data "$work/train.parquet" --out "$work/implicit" "${fit[@]}"
[ -e "$work/outcome/model" ] || reckon fit outcome-bce --data "$work/train.parquet" --out "$work/outcome" "${fit[@]}" \
    head_lr=1e-3
[ -e "$work/verifier/model" ] || reckon fit value --data "$work/labels/labels.parquet" --out "$work/verifier" \
    "${fit[@]}" head_lr=1e-3 buckets=false

# 5. What they say of the responses, the bench and the table.
judges=(implicit="$work/implicit,per=response" outcome="$work/outcome" progress="$work/verifier")
checked=(--task running_sums --set 'count=[5,5]' --set 'size=[1,50]')
[ -e "$here/responses.parquet" ] || reckon score "$work/test.parquet" "${judges[@]}" "${checked[@]}" \
    --out "$here/responses.parquet"
reckon signals "$here/responses.parquet" "${judges[@]}" "${checked[@]}" --probe 8 --out "$here/signals.html" \
    >"$here/signals.txt"
reckon best-of-n "$here/responses.parquet" "${checked[@]}" >"$here/best-of-n.md"

# 6. How far a judge reads the shape of an answer: lines of working, and tokens. And how each fit ended.
python - "$here/responses.parquet" >"$here/shape.txt" <<'PYTHON'
import sys

import numpy as np
import pyarrow.parquet as pq

rows = pq.read_table(sys.argv[1]).to_pydict()
right, lines = np.array(rows["outcome"]), np.array([text.count("\n") for text in rows["text"]])
for count in (3, 4):
    print(f"{count} lines before the total: {(lines == count).sum()} responses, {right[lines == count].mean():.1%} right")
tokens = [len(ids) for ids in rows["tokens"]]
for name in sorted(column for column in rows if column.startswith("stream/") and not column.endswith(("/tokens", "/kind"))):
    print(f"{name}: correlation with tokens {np.corrcoef(np.array(rows[name], dtype=float), tokens)[0, 1]:+.2f}")
PYTHON
for judge in implicit outcome verifier; do
    cp "$work/$judge/fitted.json" "$here/fitted-$judge.json"
done
