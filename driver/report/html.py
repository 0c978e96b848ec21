"""report.html: one file that says what a run did, to be opened in any browser, offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from contracts import files, params, stages
from contracts.stage import Result
from driver.report import evaluation, labels, split
from driver.report.display import duration
from driver.report.page import page
from driver.store import Run


def write(
    run: Run,
    state: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Result],
    workspace: Path,
    seconds: float,
) -> Path:
    """Write the report of a finished run and return its path."""
    rows = "".join(_row(name, facts) for name, facts in state.items())
    body = (
        f"<p>Finished in {duration(seconds)}. {_promotion(results)}</p>",
        f"<h2>Stages</h2><table><tr><th>stage<th>time<th>result<th>why</tr>{rows}</table>",
        _scores(results, workspace),
        _curve(results, workspace),
        _labels(results, workspace),
        _split(results, workspace),
        _answer(results),
    )
    path = run.folder / "report.html"
    files.write_text(path, page(f"Run {run.id}", "\n".join(body)))
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


def _scores(results: Mapping[str, Result], workspace: Path) -> str:
    scores, verdict = (
        json.loads((workspace / results["evaluate"].outputs[artifact.name].path).read_bytes())
        for artifact in (stages.SCORES, stages.VERDICT)
    )
    return evaluation.section(scores, verdict)


def _curve(results: Mapping[str, Result], workspace: Path) -> str:
    svg = workspace / results["train"].outputs[stages.LOSS_CURVE.name].path
    return f"<h2>Training loss</h2>{svg.read_text(encoding='utf-8')}"


def _labels(results: Mapping[str, Result], workspace: Path) -> str:
    path = workspace / results["label"].outputs[stages.LABEL_REPORT.name].path
    return f"<h2>Labels</h2>{labels.section(json.loads(path.read_text(encoding='utf-8')))}"


def _split(results: Mapping[str, Result], workspace: Path) -> str:
    path = workspace / results["split"].outputs[stages.LEAKAGE_REPORT.name].path
    return f"<h2>Split</h2>{split.section(json.loads(path.read_text(encoding='utf-8')))}"


def _answer(results: Mapping[str, Result]) -> str:
    answer = json.dumps(results["verify"].metrics["answer"], ensure_ascii=False, indent=2)
    return f"<h2>The live model's answer to the canary article</h2><pre>{escape(answer)}</pre>"
