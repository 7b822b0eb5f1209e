"""How good a policy is, whether it got better, and which signals tell right answers from wrong ones."""

from reckon.evaluate._aggregate import interquartile_mean, pooled
from reckon.evaluate._calibration import (
    Bin,
    Calibration,
    brier,
    calibration,
    debiased_error,
    isotonic,
    plain_error,
    recalibrated,
    reliability,
)
from reckon.evaluate._compare import Comparison, compare, compare_shares
from reckon.evaluate._evaluate import Answers, Evaluation, evaluate
from reckon.evaluate._first_error import FirstErrors, find_threshold, first_error, first_error_f1
from reckon.evaluate._probe import PROBES, ProbeResult, probe, probe_texts
from reckon.evaluate._signals import (
    VERDICT,
    Disagreement,
    SignalBench,
    SignalReport,
    StepReport,
    check_verdicts,
    signal_bench,
)
from reckon.evaluate._signals_best import best_of_n, vote_of_n, vote_of_subsets
from reckon.evaluate._signals_bootstrap import Estimate, bootstrap
from reckon.evaluate._signals_ranking import Pairs, auc, count_pairs, spearman
from reckon.evaluate._signals_remarks import WORDS, Remark, Trust
from reckon.evaluate._signals_steps import step_scores
from reckon.evaluate._signals_table import bench_json, bench_rows, bench_text
from reckon.evaluate._statistics import (
    Constant,
    Difference,
    Interval,
    best_constant,
    majority_vote,
    mcnemar,
    paired_difference,
    pass_at_k,
    t_quantile,
    weighted_mean,
    wilson,
)
from reckon.evaluate._summary import Response, summarize

__all__ = [
    "PROBES",
    "VERDICT",
    "WORDS",
    "Answers",
    "Bin",
    "Calibration",
    "Comparison",
    "Constant",
    "Difference",
    "Disagreement",
    "Estimate",
    "Evaluation",
    "FirstErrors",
    "Interval",
    "Pairs",
    "ProbeResult",
    "Remark",
    "Response",
    "SignalBench",
    "SignalReport",
    "StepReport",
    "Trust",
    "auc",
    "bench_json",
    "bench_rows",
    "bench_text",
    "best_constant",
    "best_of_n",
    "bootstrap",
    "brier",
    "calibration",
    "check_verdicts",
    "compare",
    "compare_shares",
    "count_pairs",
    "debiased_error",
    "evaluate",
    "find_threshold",
    "first_error",
    "first_error_f1",
    "interquartile_mean",
    "isotonic",
    "majority_vote",
    "mcnemar",
    "paired_difference",
    "pass_at_k",
    "plain_error",
    "pooled",
    "probe",
    "probe_texts",
    "recalibrated",
    "reliability",
    "signal_bench",
    "spearman",
    "step_scores",
    "summarize",
    "t_quantile",
    "vote_of_n",
    "vote_of_subsets",
    "weighted_mean",
    "wilson",
]
