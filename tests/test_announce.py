"""The lines that come before torch is imported: what is to run, and what was typed against the default."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.settings.announce import describe_start
from metarun.settings.compose import compose_choices


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run.meta_batch_size=2"], "run.meta_batch_size=2 (16)"),  # of algo=maml, not of run=offline
        (["data=sinusoid", "run.meta_batch_size=2"], "run.meta_batch_size=2 (25)"),  # tuned for both
        (["algo=rl2", "data=bandits", "bn=running"], "bn=running (none)"),  # of data=bandits, not of the root
        (["data.train.n_query=3"], "data.train.n_query=3 (5)"),
        (["seed=0"], "seed=0"),  # as it is anyway
        (['+a="s3://me:secret@host/?token=abc"'], '+a="s3://me:***@host/?token=***"'),
        (["+experiment=maml_omniglot_5w1s", "optim.lr=1"], "+experiment=maml_omniglot_5w1s  optim.lr=1"),
    ],
)
def test_what_was_typed_stands_beside_what_it_would_have_been(words: list[str], said: str) -> None:
    choices, config = compose_choices(words)
    what, typed = describe_start(config, choices, words, Path("r"))
    assert typed == f"typed: {said}"
    assert what.endswith("-> r/")
