"""Settings of a recipe that test_settings_matter.py does not try, and why: most are tried where their part is."""

import dataclasses

from other_settings import each
from reckon.models import Optimization

EXEMPT: dict[str, str] = {
    "model.device": "another device is another machine",
    "model.rows_per_batch": "changes time and memory, and results by rounding only: see models/test_same_results.py",
    "model.activation_checkpointing": "changes time and memory alone: see tests/models/test_language.py",
    "model.tokens_per_batch": "changes time and memory, and results by rounding only: see test_exact.py",
    "optimizer.total": "follows from steps, epochs and minibatches; a recipe cannot give it",
    "log": "where metrics go beside the run's folder: see tests/runs",
    "out": "where the run goes; every run of this test is sent to a folder of its own by it",
    "reward.centered.key": "needs a file of references with several: see tests/rewards/test_references.py",
    **each(
        "reward.base_samples",
        dict.fromkeys(
            ("reward", "references", "how", "key"),
            "needs a file of references: see tests/rewards/test_combine.py",
        ),
    ),
    **each(
        "reward.fitted",
        dict.fromkeys(
            ("folder", "per", "how", "unfinished", "penalty", "prover_k", "device", "dtype", "tokens_per_batch"),
            "needs a fitted judge: see tests/rewards/test_fitted.py",
        ),
    ),
    **each(
        "reward.sequence_classifier",
        dict.fromkeys(
            ("name", "label", "output", "too_long", "dtype", "device", "tokens_per_batch"),
            "needs a classifier: see tests/rewards/test_classifier.py",
        ),
    ),
    **each(
        "reward.adaptive_kl_reward",
        dict.fromkeys(
            ("target", "horizon"),
            "the coefficient moves after the step it was charged in: see tests/rewards/test_leaves.py",
        ),
    ),
    **each(
        "reward.online_implicit_reward.optimizer",
        dict.fromkeys(
            (f.name for f in dataclasses.fields(Optimization)),
            "of another model; what each does is tried as optimizer.*, that it gets there in test_implicit_online.py",
        ),
    ),
    "reward.online_implicit_reward.optimizer": "see the settings in it",
    **each(
        "reward.token_outcome_model.optimizer",
        dict.fromkeys(
            (f.name for f in dataclasses.fields(Optimization)),
            "of another model; what each does is tried as optimizer.*, that it gets there in test_token_outcome.py",
        ),
    ),
    "reward.token_outcome_model.optimizer": "see the settings in it",
    "reward.token_outcome_model.balanced": "matters after the step it learned in: see rewards/test_token_outcome.py",
    "method.oreal.rates": "needs a table of answers: see tests/samplers/test_by_pass_rate.py",
    "sampler.by_pass_rate.rates": "needs a table of answers: see tests/samplers/test_by_pass_rate.py",
    "method.oreal.lr": "of a model that learns after it is read: see rewards/test_token_outcome.py",
    "reward.online_implicit_reward.splitter": "needs a function of one's own: see rewards/test_implicit_online.py",
    **each(
        "reward.random_distillation",
        dict.fromkeys(
            ("lr", "steps", "decay"),
            "read after the first step alone: see tests/rewards/test_novelty_distillation.py",
        ),
    ),
    **each(
        "reward.hack_monitor",
        dict.fromkeys(
            ("on_alarm", "window", "rise", "fall", "remains", "least_pairs", "frozen", "least_accuracy", "threshold"),
            "passes on what its judge says, unchanged: see tests/rewards/test_hack_monitor.py",
        ),
    ),
    **each(
        "reward.advantage_monitor",
        dict.fromkeys(
            ("against", "every", "responses"),
            "passes on what its judge says, unchanged: see tests/rewards/test_advantage_monitor.py",
        ),
    ),
    **each(
        "reward.online_reference_based",
        dict.fromkeys(
            (
                *("folder", "output", "every", "positive", "negatives", "workers", "seconds"),
                *("show_reference", "keep", "too_long", "replay", "replay_rows", "dtype"),
            ),
            "needs a judge that reads text: see tests/rewards/test_online_reference_based.py",
        ),
    ),
    **each(
        "reward.online_reference_based.optimizer",
        dict.fromkeys(
            (f.name for f in dataclasses.fields(Optimization)),
            "of another model; what each does is tried as optimizer.*, that it gets there in the same file",
        ),
    ),
    "reward.online_reference_based.optimizer": "see the settings in it",
    **each(
        "method.cooper",
        dict.fromkeys(
            ("judge", "lr", "positive", "clip", "kl", "dtype"),
            "needs a judge that reads text: tried by runs in tests/test_method_cooper.py",
        ),
    ),
    "reward.novelty.decay": "the first step has nothing to forget: see tests/rewards/test_novelty.py",
    "advantage.gae.expects": "shows in what the critic is taught, not in what is credited: see tests/test_gae.py",
    **each(
        "reward.checked_advantage",
        dict.fromkeys(
            ("skill", "prover_k", "splitter", "splitter.regex"),
            "needs a task that checks steps: see tests/rewards/test_checked_advantage.py",
        ),
    ),
    **each(
        "reward.monte_carlo_advantage",
        dict.fromkeys(
            ("splitter", "splitter.regex", "n_mc", "prover_k", "refresh", "prover"),
            "needs a policy that answers: tried by runs in tests/test_method_pav_rl.py",
        ),
    ),
    **each(
        "method.pav_rl",
        dict.fromkeys(
            ("alpha", "n_mc", "prover_k", "refresh", "n_own", "kl"),
            "needs a policy that answers: tried by runs in tests/test_method_pav_rl.py",
        ),
    ),
    "reward.constrained.lr": "a price moves after the step it was paid in: see tests/rewards/test_combine.py",
    "reward.http.url": "needs a server: see tests/rewards/test_http.py, as for the three below",
    "reward.http.timeout": "matters when a server is slow",
    "reward.http.retries": "matters when a server fails",
    "reward.http.backoff": "changes how long a failing server is waited for",
    "task.reasoning_gym.seconds": "matters when a scorer hangs: see tests/tasks/test_killable.py",
}
