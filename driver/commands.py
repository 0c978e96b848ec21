"""What each command of `python -m driver` does with its arguments, once they are parsed.

Every command takes the parsed arguments and returns the exit code; it raises `RetrainError` where
it cannot do what was asked. `driver/task_commands.py` has those of `label`, `labels` and `task`.
What a command needs is imported by itself: `--help` and `status` have
no use for Docker or the serving engine.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from contracts.errors import (
    FileUnusable,
    GpuUnavailable,
    Interrupted,
    OutOfMemory,
    RetrainError,
    SettingsInvalid,
)
from driver import invocation


def run(arguments: argparse.Namespace) -> int:
    """Run all that has to be done; `--force REASON` overrules the gate."""
    from driver import pipeline

    if arguments.force is not None:
        if not arguments.force.strip():
            raise SettingsInvalid(
                "--force without a reason", why="the deployment keeps why the gate was overruled"
            )
        arguments.set.append(f"deploy.force={json.dumps(arguments.force.strip())}")
    if arguments.accept_drift:
        arguments.set.append("accept_drift=true")
    with invocation.at_work(arguments) as session:
        pipeline.run(session)
    return 0


def stage(arguments: argparse.Namespace) -> int:
    """Run one stage on what is there."""
    from driver import pipeline

    with invocation.at_work(arguments) as session:
        pipeline.run_one(session, arguments.name)
    return 0


def reprocess(arguments: argparse.Namespace) -> int:
    """Give the items the live model's answers; or show how far that is; or undo it."""
    if arguments.status:
        from driver.report import reprocess as shown

        if arguments.backend_moved:
            raise SettingsInvalid(
                "--backend-moved does not go with --status, which asks no backend",
                todo="`driver reprocess --backend-moved` notes the move, and goes on.",
            )
        return shown.status(invocation.workspace(arguments))
    if arguments.restore is not None:
        return _restore(arguments)
    if arguments.yes or arguments.out:
        raise SettingsInvalid("--yes and --out belong to --restore")
    from driver import pipeline
    from driver.adapters.backend import Backend
    from driver.adapters.items import storage_of
    from driver.host_stages import same_backend

    if arguments.unverified:
        arguments.set.append("reprocess.unverified=true")
    with invocation.at_work(arguments) as session:
        if arguments.backend_moved:
            _require_address(session.backend_url)
            backend, storage = Backend(session.backend_url), storage_of(session.task)
            session.display.note(same_backend.note_move(session.workspace, backend, storage))
        pipeline.reprocess(session)
    return 0


def _require_address(url: str) -> None:
    if not url:
        raise SettingsInvalid(
            "--backend-moved without a backend",
            why="no backend.url says where it is now",
            todo="Set backend.url.",
        )


def _restore(arguments: argparse.Namespace) -> int:
    """Show what differs from before a reprocess; write it back only with --yes."""
    from contracts import files
    from driver import locks, restoration
    from driver.adapters import backend_edits
    from driver.adapters.backend import Backend
    from driver.adapters.items import storage_of
    from driver.host_stages.record import Record
    from driver.report import reprocess as shown
    from driver.task.load import load_named

    settings = invocation.settings(arguments)
    url = settings.backend.url if settings.backend else ""
    if arguments.backend_moved:
        _require_address(url)
    record = Record.find(settings.workspace, arguments.restore)
    storage = storage_of(load_named(settings.task))
    backend = Backend(url or record.about().backend)
    restoration.require_same_backend(record, backend, moved=arguments.backend_moved)
    edits = backend_edits.find(backend)
    with ExitStack() as held:
        if arguments.yes:
            held.enter_context(locks.workspace(settings.workspace))
        found = restoration.differences(backend, storage, record)
        shown.differences(found, restoration.writable(edits, storage))
        if told := restoration.earlier(settings.workspace, storage, record):
            print(told)
        if arguments.out:
            written = files.write_jsonl(arguments.out, restoration.lines(found))
            print(f"{written} items to give back written to {arguments.out}")
        if arguments.yes:
            done = restoration.write_back(backend, storage, record, found, edits)
            print(restoration.require(done))
        else:
            print("Nothing was changed; --yes writes back what can be written.")
    return 0


def plan(arguments: argparse.Namespace) -> int:
    """Say what a run would do about each stage, whether the training fits, and what is in doubt."""
    from driver import forecast, pipeline, preflight
    from driver.plan import Action
    from driver.report.display import plan_table
    from driver.task import cost, trial
    from driver.task.check import at_run

    session = invocation.session(arguments)
    plan = pipeline.make(session)
    plan_table(plan, session.display.console)
    cost.announce(session, plan)
    if forecast.trains(plan):
        try:
            forecast.announce(session)
        except (GpuUnavailable, OutOfMemory, SettingsInvalid) as error:
            session.display.warn(str(error))
    running = [step.stage for step in plan if step.action is Action.RUN]
    for doubt in (*preflight.doubts(session, running), *at_run.doubts(session, running)):
        session.display.warn(doubt)
    if doubt := trial.doubts(session.task):
        session.display.warn(doubt)
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Show the last run, or the one under way."""
    from driver.report import status

    return status.show(invocation.workspace(arguments))


def doctor(arguments: argparse.Namespace) -> int:
    """Say what this host lacks."""
    from driver import doctor

    return doctor.show(invocation.session(arguments))


def recover(arguments: argparse.Namespace) -> int:
    """Bring back a service that a killed run has left stopped."""
    from driver import recover
    from driver.report.display import LastingConsole

    console = LastingConsole(highlight=False, soft_wrap=True)
    recover.recover(invocation.workspace(arguments), console.say)
    return 0


def models(arguments: argparse.Namespace) -> int:
    """List the versions of the served model."""
    from driver import unfinished, versions
    from driver.report import models

    session = invocation.session_of_any_task(arguments)
    name = session.settings.deploy.name
    try:
        found = versions.versions(session.workspace, session.engine, name)
        live = versions.live_digest(session.engine, name)
        models.show(found, name, live, unfinished.unfinished(session.workspace, live))
    finally:
        session.close()
    return 0


def rollback(arguments: argparse.Namespace) -> int:
    """Let an older version be live again, by digest."""
    from driver import locks, taken_back, versions

    wanted = arguments.version
    if wanted is not None and not wanted.strip():  # of a variable that is not set, say
        raise SettingsInvalid(
            "the VERSION to go back to is empty",
            why="nobody knows which one was meant",
            todo="Name one of `driver models`; without VERSION it is the one before.",
        )
    session = invocation.session_of_any_task(arguments)
    name = session.settings.deploy.name
    try:
        with locks.workspace(session.workspace):
            live, before = versions.roll_back(
                session.workspace, session.engine, name, wanted or "", print
            )
            barred = before in taken_back.rejected(session.workspace)
        doubt = ""
        with suppress(RetrainError):  # the task may be broken, and the rollback is done
            num_ctx = session.task.serving.num_ctx
            doubt = versions.smaller_context(session.engine, live.tag, num_ctx)
    finally:
        session.close()
    print(f"{name} is {live.tag} now (digest {live.digest[:12]}, as the serving engine shows it).")
    if before and before != live.tag:
        print(
            f"{before} was taken back: no run lets it go live again."
            if barred
            else f"{before} was not taken back: a run may let it go live again."
        )
    if doubt:
        print(doubt)
    with suppress(FileUnusable):  # the rollback is done; `reprocess` names what is damaged
        if versions.others_answers(session.workspace, live.digest):
            print(
                "The items still hold the answers of the model before: `driver reprocess` has "
                f"{live.tag} analyse them."
            )
    return 0


def logs(arguments: argparse.Namespace) -> int:
    """Show what the stages of a run have said; Ctrl-C, the usual end of -f, needs no words."""
    from driver.report import logs
    from driver.signals import SIGNALS

    def say(line: str) -> None:
        print(line, flush=arguments.follow)

    def note(line: str) -> None:
        print(line, file=sys.stderr)

    SIGNALS.be_quiet()
    place = invocation.workspace(arguments), arguments.stage, arguments.run
    try:
        logs.show(*place, follow=arguments.follow, say=say, note=note)
    except KeyboardInterrupt:
        return Interrupted.exit_code
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write the report of a run anew: also of one that was killed before it could."""
    from driver.report import html
    from driver.store import Run

    workspace = invocation.workspace(arguments)
    print(html.write(workspace, Run.named(workspace, arguments.run)))
    return 0


def verify_lineage(arguments: argparse.Namespace) -> int:
    """Follow what is served, or what a run has made, back to the rows; check every link."""
    from contracts import stages
    from driver import lineage
    from driver.store import Run

    session = invocation.session(arguments)
    workspace, engine = session.workspace, session.engine
    say = partial(session.display.console.print, markup=False, emoji=False)  # outlives `| head`
    links, noted = [], dict[str, Any]()
    try:
        if arguments.run:
            run = Run.named(workspace, arguments.run)
            start = lineage.end_of(run)
            noted = lineage.as_noted(run, start[0])
        else:
            start = lineage.live(workspace, engine, session.settings.deploy.name)
        for link in lineage.check(workspace, engine, start, noted):
            links.append(link)
            say(f"{link.state:<6}  {link.name:<32}  {link.digest[:12]:<12}  {link.text}")
    finally:
        session.close()
    lineage.require_whole(links)
    what = "what is served" if start[0] == stages.DEPLOY.name else "a candidate, not deployed,"
    say(f"The chain holds: {len(links)} links, from {what} back to the rows.")
    return 0


def install_unit(arguments: argparse.Namespace) -> int:
    """Write the systemd unit that recovers at boot, and enable it."""
    from driver import unit_file

    workspace = invocation.workspace(arguments)
    if arguments.print:
        print(unit_file.render(workspace), end="")
        return 0
    path, by_hand = unit_file.install(workspace, arguments.folder)
    print(f"Written: {path}")
    print(f"Enable it: {by_hand}" if by_hand else "Enabled: it runs at every boot.")
    return 0


def show_settings(arguments: argparse.Namespace) -> int:
    """Print every setting with its meaning, or as in effect."""
    from driver.report import settings

    if arguments.resolved:
        print(invocation.settings(arguments).model_dump_json(indent=2))
    else:
        print(settings.describe(), end="")
    return 0
