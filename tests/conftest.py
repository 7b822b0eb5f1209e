"""For all tests: how hypothesis searches, and a language model that answers in milliseconds."""

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is loaded, for whatever the tests start as well
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

# No deadline: on a busy machine it would measure the neighbors. Under CI the same examples every time.
settings.register_profile("reckon", deadline=None)
settings.register_profile("reckon-ci", deadline=None, derandomize=True)
settings.load_profile("reckon-ci" if os.environ.get("CI") else "reckon")


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk():
    """Whoever reads a file finds what was written, on the disk or not yet; only a power cut would tell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> Path:
    """The folder of a model like `tiny`, of one layer of width 16."""
    from reckon.models import tiny

    folder = tmp_path_factory.mktemp("models") / "small"
    tiny.make_network(layers=1, width=16, heads=2, context=96).save_pretrained(folder)
    tiny.make_tokenizer().save_pretrained(folder)
    return folder
