import re
from pathlib import Path

import reckon.rewards
from reckon.rewards import _combine, _references

PAGE = Path(__file__).parents[2] / "docs" / "combinations.md"


def test_the_page_s_examples_run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the example saves its references
    for module, names in (
        (_combine, ("Centered", "Probability", "and_", "not_", "or_")),
        (_references, ("ReferenceStore",)),
    ):
        for name in names:
            monkeypatch.setattr(reckon.rewards, name, getattr(module, name), raising=False)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), {})
    printed = capsys.readouterr().out
    promised = re.findall(r"^print\(.*# (.*)$", "\n".join(blocks), re.MULTILINE)
    assert len(promised) == 5
    for line in promised:
        assert line in printed
    assert "reward/good/helpful.no_reference/mean" in printed
