"""report.html: one file that says what a run did, to be opened in any browser, offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from contracts import files, params, stages
from contracts.stage import Result
from driver.report.display import duration
from driver.store import Run

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Run {run}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #8884;
  vertical-align: top }}
td.number {{ text-align: right; white-space: nowrap }}
tr.reused {{ opacity: .65 }}
meter {{ width: 10rem }}
pre {{ white-space: pre-wrap; background: #8881; padding: 1rem; border-radius: .4rem }}
svg {{ max-width: 100%; height: auto }}
</style>
<h1>Run {run}</h1>
<p>{summary}</p>
<h2>Stages</h2>
<table><tr><th>stage<th>time<th>result<th>why</tr>{rows}</table>
{sections}
</html>
"""


def write(
    run: Run,
    state: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Result],
    workspace: Path,
    seconds: float,
) -> Path:
    """Write the report of a finished run and return its path."""
    sections = [_scores(results), _curve(results, workspace), _answer(results)]
    page = _PAGE.format(
        run=escape(run.id),
        summary=f"Finished in {duration(seconds)}. {_promotion(results)}",
        rows="".join(_row(name, facts) for name, facts in state.items()),
        sections="\n".join(section for section in sections if section),
    )
    path = run.folder / "report.html"
    files.write_text(path, page)
    return path


def _row(name: str, facts: Mapping[str, Any]) -> str:
    reused = facts.get("state") == "reused"
    took = "reused" if reused else duration(facts.get("seconds", 0))
    summary, reason = (escape(str(facts.get(key, ""))) for key in ("summary", "reason"))
    kind = "reused" if reused else "ran"
    return (
        f'<tr class="{kind}"><td>{escape(name)}<td class="number">{took}'
        f"<td>{summary}<td>{reason}</tr>"
    )


def _promotion(results: Mapping[str, Result]) -> str:
    deployed = params.DeployMetrics.model_validate(results["deploy"].metrics)
    kept = f" The previous version is kept as {deployed.previous}." if deployed.previous else ""
    return escape(f"Live: {deployed.summary()}.{kept}")


def _scores(results: Mapping[str, Result]) -> str:
    metrics = params.EvaluateMetrics.model_validate(results["evaluate"].metrics)
    rows = "".join(
        f'<tr><td>{escape(name)}<td class="number">{value:.3f}'
        f'<td><meter min="0" max="1" value="{value:.3f}"></meter></tr>'
        for name, value in metrics.scores.items()
    )
    return (
        f"<h2>Evaluation</h2><p>{metrics.valid} of {metrics.rows} answers on the test split are "
        f"valid.</p><table><tr><th>score<th>value<th></tr>{rows}</table>"
    )


def _curve(results: Mapping[str, Result], workspace: Path) -> str:
    svg = workspace / results["train"].outputs[stages.LOSS_CURVE.name].path
    return f"<h2>Training loss</h2>{svg.read_text(encoding='utf-8')}"


def _answer(results: Mapping[str, Result]) -> str:
    answer = json.dumps(results["verify"].metrics["answer"], ensure_ascii=False, indent=2)
    return f"<h2>The live model's answer to the canary article</h2><pre>{escape(answer)}</pre>"
