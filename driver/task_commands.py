"""What the commands `label`, `labels` and `task` do with their arguments, once they are parsed.

As `driver/commands.py`, which has all others.
"""

from __future__ import annotations

import argparse

from contracts.errors import LabelsMissing, SettingsInvalid
from driver import commands, invocation


def export_labels(arguments: argparse.Namespace) -> int:
    """Write every answer of the teacher to a file."""
    from driver import labels, locks

    workspace = invocation.settings(arguments).workspace
    with locks.workspace(workspace):
        written, damaged = labels.export(workspace, arguments.file)
    print(f"{written} rows written to {arguments.file}")
    if damaged:
        print(f"  damaged and left out: {damaged}; the label stage asks for these again")
    return 0


def import_labels(arguments: argparse.Namespace) -> int:
    """Take answers and labels from files; only what keeps the rules counts."""
    from driver import labels, locks

    session = invocation.session(arguments)
    with locks.workspace(session.workspace):
        found = labels.take(session.workspace, session.task, arguments.files)
    print(
        f"{found.rows} rows: {found.labels} labels and {found.answers} answers of a teacher are new"
    )
    if found.known:
        print(f"  known already: {found.known}")
    for kind, count in found.refused.most_common():
        print(f"  refused, {kind}: {count}")
    for kind, count in found.strangers.items():
        print(f"  kept, but for no item of the last snapshot, {kind}: {count}")
    for example in found.examples:
        print(f"    {example}")
    if found.refused_rows == found.rows:
        raise LabelsMissing("not one row was taken", todo="See the reasons above.")
    print(
        "The label stage asks no more about an item with a valid label here; one whose answers "
        "all break a rule is asked about up to label.max_attempts times in all."
    )
    return 0


def report_labels(arguments: argparse.Namespace) -> int:
    """Write the page about the last labelling."""
    from driver.report import labels

    folder = labels.write(invocation.settings(arguments).workspace, arguments.out)
    print(f"{arguments.out} reports on {folder}")
    return 0


def label(arguments: argparse.Namespace) -> int:
    """Run the label stage; or show a few rows under the task as it was and as it is."""
    from driver.preview import command

    if arguments.preview is not None:
        return command.show(
            invocation.session(arguments), arguments.preview, arguments.since, arguments.out
        )
    if arguments.since or arguments.out:
        raise SettingsInvalid("--since and --out belong to --preview")
    return commands.stage(arguments)


def show_task(arguments: argparse.Namespace) -> int:
    """Show the task at a glance."""
    from driver.task import show

    return show.show(invocation.settings(arguments), as_json=arguments.json)


def diff_task(arguments: argparse.Namespace) -> int:
    """Say what an edit of the task costs before it is made."""
    from driver.task import diff

    return diff.show(invocation.session(arguments), arguments.since, as_json=arguments.json)


def render_task(arguments: argparse.Namespace) -> int:
    """Write all that others need of the task."""
    from driver.task import publish

    return publish.render_all(invocation.settings(arguments), arguments.out, arguments.after)


def check_task(arguments: argparse.Namespace) -> int:
    """Hold the task against the backend, its code, and the deployed model."""
    from driver.task.check import command

    given = arguments.repository, arguments.sent
    return command.check(invocation.session(arguments), *given, as_patch=arguments.patch)


def new_task(arguments: argparse.Namespace) -> int:
    """Begin a task of one's own."""
    from driver.task import begin

    return begin.begin(arguments.name, arguments.field, arguments.language)
