"""report.html: one file that says what a run did, to be opened in any browser, offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from contracts import files, stages
from driver.report import (
    answers,
    charts,
    evaluation,
    labels,
    lineage,
    split,
    timeline,
    verdict,
)
from driver.report.display import duration
from driver.report.finished import Finished
from driver.report.page import page, section
from driver.store import Run

FILE = "report.html"


def write(workspace: Path, run: Run) -> Path:
    """Write the report of a run that has ended, well or not, and return its path.

    It is made from the run's own notes and the store, so it can be made again at any time.
    """
    path = run.folder / FILE
    files.write_text(path, page(f"Run {run.id}", _body(Finished(workspace, run))))
    return path


def _body(found: Finished) -> str:
    scores = found.read(stages.EVALUATE, stages.SCORES)
    sections = (
        *_evaluated(found, scores),
        ("training", "Training", _training(found)),
        ("labels", "Labels", _labels(found)),
        ("split", "Split", _split(found)),
        ("time", "Stages and the service", timeline.section(found)),
        ("service", "In service", _service(found)),
        ("lineage", "Lineage", lineage.section(found)),
    )
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, body in sections if body)
    return (
        f"{verdict.section(found, scores)}<nav aria-label=sections>{links}</nav>"
        f"{''.join(section(*each) for each in sections)}"
    )


def _evaluated(found: Finished, scores: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Return the sections on the evaluation, none where it did not come so far."""
    if scores is None:
        return []
    rows = found.rows(stages.EVALUATE, stages.ANSWERS)
    errors = f"{evaluation.confusions(scores)}{evaluation.reliabilities(scores)}"
    return [
        ("models", "Side by side", evaluation.side_by_side(scores, scores.get("matters", ()))),
        ("errors", "Where they err", f"{errors}{evaluation.rules(scores)}"),
        ("answers", "Answers to read", answers.section(rows, scores, found.asked())),
    ]


def _training(found: Finished) -> str:
    log = found.read(stages.TRAIN, stages.TRAINING_LOG)
    if log is None:
        return ""
    metrics, best = log["metrics"], log.get("best_step")
    facts = {
        "kept": f"the checkpoint of step {best} (dashed)" if best else "the last checkpoint",
        "validation loss": f"{metrics['untrained_loss']:.3f} before, "
        f"{metrics['validation_loss']:.3f} after",
        "rows": f"{metrics['rows']:,}, {metrics['dropped']:,} dropped",
        "answer tokens": f"{metrics['trained_tokens']:,}",
        "backend": metrics["backend"],
        "peak memory": f"{metrics['peak_memory_mib']:,} MiB",
        "time": duration(found.results[stages.TRAIN.name].seconds),
        "stopped early": "yes" if log.get("stopped_early") else "no",
    }
    training, validation = _series(log)
    smoothed = " (thin: as it was, bold: smoothed)" if len(training) > charts.MANY else ""
    told = "".join(f"<dt>{name}<dd>{escape(str(value))}" for name, value in facts.items())
    return (
        f'<div class="legend"><span><i class="training"></i>training loss{smoothed}</span>'
        '<span><i class="validation"></i>validation loss</span>'
        "<span>nats an answer token</span></div>"
        f'<div class="beside"><figure class="loss">{charts.losses(training, validation, best)}'
        f'</figure><dl class="facts">{told}</dl></div>'
    )


def _series(log: Mapping[str, Any]) -> tuple[charts.Points, charts.Points]:
    """Return training and validation loss by step; before the first one, that of the base."""
    training, validation = (
        [(float(each["step"]), float(each[name])) for each in log["log"] if name in each]
        for name in ("loss", "eval_loss")
    )
    if validation and validation[0][0] > 0:
        validation = [(0.0, float(log["metrics"]["untrained_loss"])), *validation]
    return training, validation


def _labels(found: Finished) -> str:
    report = found.read(stages.LABEL, stages.LABEL_REPORT)
    return labels.section(report) if report else ""


def _split(found: Finished) -> str:
    report = found.read(stages.SPLIT, stages.LEAKAGE_REPORT)
    return split.section(report) if report else ""


def _service(found: Finished) -> str:
    """Return what the live model said to the canary, and what became of the items."""
    parts = []
    verified = found.metrics(stages.VERIFY)
    if verified:
        answer = json.dumps(verified.get("answer"), ensure_ascii=False, indent=2)
        parts.append(f"<p>Verified: {escape(found.noted(stages.VERIFY).summary)}.</p>")
        parts.append(f"<pre>{escape(answer)}</pre>" if verified.get("answer") else "")
    if stages.REPROCESS.name in found.results:
        parts.append(f"<p>Reprocessed: {escape(found.noted(stages.REPROCESS).summary)}.</p>")
    return "".join(parts)
