"""What the names of measures mean, for who has not read docs/reference/gate.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from driver.report.page import folded, table

_WHOLE = {
    "valid": "share of answers that have the form and the values that the task demands",
    "rules": "share of answers that are valid and break no label rule of severity error",
}
_MAIN = {
    "flag": "share of rows with the right value",
    "choice": "share of rows with the right value",
    "choices": "F1 over all values chosen (micro): rightly chosen, against missed and added ones",
    "number": "one minus the mean absolute error",
    "text": "share of rows where there is a text, or none, as the label has it",
}
"""By the kind of its field, a measure with the field's own name."""
_FURTHER = {
    ".precision": "of the rows that the model calls so, the share that is",
    ".recall": "of the rows that are so by the label, the share that the model finds",
    ".f1": "harmonic mean of precision and recall",
    ".macro_f1": "mean of the F1 of each value, so that the rare ones count as much",
    ".exact": "share of rows with just the right values, none missed and none added",
    ".positive": "the same share, of those answers alone that are positive and so have long texts, "
    "or are not valid; models are compared by it on the rows alone that both call positive",
    ".kappa": "agreement beyond chance on a scale (Cohen, quadratic weights): 0 is chance, and far "
    "off counts more than near",
    ".brier": "mean squared error of the stated probability; an error, 0 is best",
    ".ece": "how far stated probabilities lie from how often they come true (expected calibration "
    "error); 0 is best",
}


def explained(names: Iterable[str], kinds: Mapping[str, str]) -> str:
    """Return a line on each measure; `kinds` is the kind of each field of the answer.

    A measure that is not known here is left out.
    """
    rows = [(name, text) for name in names if (text := _text(name, kinds))]
    if not rows:
        return ""
    note = "<p>1 is best, but for errors. An answer that is not valid counts as the worst.</p>"
    return folded("What the measures mean", note + table(("measure", "is"), rows))


def _text(name: str, kinds: Mapping[str, str]) -> str:
    if name in kinds:
        return _MAIN.get(kinds[name], "")
    _, dot, suffix = name.rpartition(".")
    return _WHOLE.get(name, "") if not dot else _FURTHER.get(dot + suffix, "")
