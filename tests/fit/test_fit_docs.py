"""What the page shows, runs."""

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "fit.md"


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECKON_CACHE", str(tmp_path / "cache"))
    blocks = [block.split("```")[0] for block in PAGE.read_text().split("```python\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), {})
    assert (tmp_path / "runs" / "implicit" / "model" / "judge.json").exists()
    assert "runs/implicit/model" in capsys.readouterr().out
