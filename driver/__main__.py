"""The commands of `python -m driver`; `--help` lists them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import (
    Interrupted,
    LabelsMissing,
    OutOfMemory,
    RetrainError,
    SettingsInvalid,
    Unforeseen,
    from_os_error,
)
from driver.signals import SIGNALS

if TYPE_CHECKING:
    from driver.session import Session
    from driver.settings import Settings

_EPILOG = """\
Settings come from retrain.yaml (or --config FILE), then from the environment
(RETRAIN__TRAIN__LEARNING_RATE=1e-4), then from --set train.learning_rate=1e-4.
The serving engine is found by OLLAMA_HOST, the Docker engine by DOCKER_HOST, the
Hugging Face hub by HF_HOME, HF_ENDPOINT and HF_TOKEN.

Exit codes: 0 done; 2 usage; 10 and up name the failure (docs/reference/exit-codes.md).
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    arguments = _parser().parse_args(argv)
    SIGNALS.install()
    try:
        return int(arguments.command(arguments))
    except KeyboardInterrupt as error:
        return _fail(Interrupted("stopped by a signal"), error)
    except RetrainError as error:
        return _fail(error, error)
    except OSError as error:
        return _fail(from_os_error(error), error)
    except Exception as error:  # noqa: BLE001  # the last frame: a message in place of a traceback
        if os.environ.get("RETRAIN_TRACEBACK"):
            traceback.print_exc()
        return _fail(Unforeseen(f"unforeseen {type(error).__name__}", why=str(error)[:500]), error)


def _fail(error: RetrainError, raised: BaseException) -> int:
    from driver.report.display import complain

    complain(error, raised)
    return error.exit_code


# --- commands ----------------------------------------------------------------------------------
def _run(arguments: argparse.Namespace) -> int:
    from driver import pipeline

    if arguments.force is not None:
        if not arguments.force.strip():
            raise SettingsInvalid(
                "--force without a reason", why="the deployment keeps why the gate was overruled"
            )
        arguments.set.append(f"deploy.force={json.dumps(arguments.force.strip())}")
    with _at_work(arguments) as session:
        pipeline.run(session)
    return 0


def _stage(arguments: argparse.Namespace) -> int:
    from driver import pipeline

    with _at_work(arguments) as session:
        pipeline.run_one(session, arguments.name)
    return 0


@contextmanager
def _at_work(arguments: argparse.Namespace) -> Iterator[Session]:
    """Hold what only one run may have; whatever happens inside, the service comes back."""
    from driver import locks

    session = _session(arguments)
    with ExitStack() as held:
        held.enter_context(locks.workspace(session.workspace))
        if session.settings.backend or session.settings.train.device == "cuda":
            held.enter_context(locks.host(session.workspace))
        held.callback(session.close)
        try:
            _take_over(session)
            yield session
        finally:
            session.bring_back()


def _plan(arguments: argparse.Namespace) -> int:
    from driver import forecast, pipeline
    from driver.report.display import plan_table

    session = _session(arguments)
    plan = pipeline.make(session)
    plan_table(plan, session.display.console)
    if forecast.trains(plan):
        try:
            forecast.announce(session)
        except OutOfMemory as error:
            session.display.warn(str(error))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from driver.report import status

    return status.show(_workspace(arguments))


def _doctor(arguments: argparse.Namespace) -> int:
    from driver import doctor

    return doctor.show(_session(arguments))


def _recover(arguments: argparse.Namespace) -> int:
    from driver import recover

    recover.recover(_workspace(arguments), print)
    return 0


def _models(arguments: argparse.Namespace) -> int:
    from driver import versions
    from driver.report import models

    session = _session(arguments)
    name = session.settings.deploy.name
    try:
        models.show(versions.versions(session.workspace, session.engine, name), name)
    finally:
        session.close()
    return 0


def _rollback(arguments: argparse.Namespace) -> int:
    from driver import locks, promotion, versions

    session = _session(arguments)
    name = session.settings.deploy.name
    try:
        with locks.workspace(session.workspace):
            if said := promotion.settle(session.workspace):
                print(said)
            live, before = versions.roll_back(
                session.workspace, session.engine, name, arguments.version
            )
    finally:
        session.close()
    print(f"{name} is {live.tag} now (digest {live.digest[:12]}, as the serving engine shows it).")
    if before and before != live.tag:
        print(f"{before} was taken back: no run lets it go live again.")
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    from driver.report import logs

    def say(line: str) -> None:
        print(line, flush=arguments.follow)

    place = _workspace(arguments), arguments.stage, arguments.run
    logs.show(*place, follow=arguments.follow, say=say)
    return 0


def _install_unit(arguments: argparse.Namespace) -> int:
    from driver import unit_file

    workspace = _workspace(arguments)
    if arguments.print:
        print(unit_file.render(workspace), end="")
        return 0
    path, by_hand = unit_file.install(workspace, arguments.folder)
    print(f"Written: {path}")
    print(f"Enable it: {by_hand}" if by_hand else "Enabled: it runs at every boot.")
    return 0


def _export_labels(arguments: argparse.Namespace) -> int:
    from driver import labels, locks

    workspace = _settings(arguments).workspace
    with locks.workspace(workspace):
        written, damaged = labels.export(workspace, arguments.file)
    print(f"{written} rows written to {arguments.file}")
    if damaged:
        print(f"  damaged and left out: {damaged}; the label stage asks for these again")
    return 0


def _import_labels(arguments: argparse.Namespace) -> int:
    from driver import labels, locks

    session = _session(arguments)
    with locks.workspace(session.workspace):
        found = labels.take(session.workspace, session.task, arguments.files)
    print(
        f"{found.rows} rows: {found.labels} labels and {found.answers} answers of a teacher are new"
    )
    if found.known:
        print(f"  known already: {found.known}")
    for kind, count in found.refused.most_common():
        print(f"  refused, {kind}: {count}")
    for example in found.examples:
        print(f"    {example}")
    if found.refused_rows == found.rows:
        raise LabelsMissing("not one row was taken", todo="See the reasons above.")
    print(
        "The label stage asks no more about an item with a valid label here; one whose answers "
        "all break a rule is asked about up to label.max_attempts times in all."
    )
    return 0


def _report_labels(arguments: argparse.Namespace) -> int:
    from driver.report import labels

    folder = labels.write(_settings(arguments).workspace, arguments.out)
    print(f"{arguments.out} reports on {folder}")
    return 0


def _show_settings(arguments: argparse.Namespace) -> int:
    from driver import settings

    if arguments.resolved:
        print(_settings(arguments).model_dump_json(indent=2))
    else:
        print(settings.describe(), end="")
    return 0


# --- shared ------------------------------------------------------------------------------------
def _settings(arguments: argparse.Namespace) -> Settings:
    from driver import settings

    loaded = settings.load(arguments.config, arguments.set)
    if arguments.workspace:
        loaded = loaded.model_copy(update={"workspace": arguments.workspace})
    return loaded


def _workspace(arguments: argparse.Namespace) -> Path:
    """Return the workspace; one that is named needs no settings."""
    return Path(arguments.workspace or _settings(arguments).workspace)


def _session(arguments: argparse.Namespace) -> Session:
    from driver.report.display import Display
    from driver.session import Session
    from tasks import UnknownTask

    try:
        return Session(_settings(arguments), Display())
    except UnknownTask as error:
        raise SettingsInvalid(
            "the settings name no task of this checkout", why=str(error)
        ) from error


def _take_over(session: Session) -> None:
    """Deal with what a driver that died has left stopped.

    If its stage still works in a container, the service stays away and the run goes on with it:
    brought back now, the two would fight for the GPU.
    """
    from driver import promotion

    if said := promotion.settle(session.workspace):
        session.display.warn(said)
    if not session.window.is_open:
        return
    at_work = session.containers.at_work() if session.containers else []
    if at_work:
        session.display.warn(
            f"a run that died has left the service stopped, and {', '.join(at_work)} at work; "
            "this run goes on with both"
        )
        return
    session.display.warn("a run that died has left the service stopped; bringing it back first")
    session.close_window()


def _parser() -> argparse.ArgumentParser:
    from driver.settings import DEFAULT_FILE

    parser = argparse.ArgumentParser(
        prog="python -m driver",
        description="Retrain a self-hosted LLM on this host and put it back into service.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-c", "--config", type=Path, default=DEFAULT_FILE, help="settings file (%(default)s)"
    )
    common.add_argument("-w", "--workspace", type=Path, help="overrides the setting workspace")
    common.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="overrides one setting"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("run", _run, "do all that has to be done: label, train, evaluate, deploy, verify"),
        ("plan", _plan, "say what a run would do about each stage, and why; change nothing"),
        ("status", _status, "show the last run, or the one under way"),
        ("doctor", _doctor, "say what this host lacks, and the command that mends it"),
        ("recover", _recover, "bring back a service that a killed run has left stopped"),
    ):
        sub = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(command=command)
        if command is _run:
            sub.add_argument(
                "--force",
                metavar="REASON",
                help="let a model go live that the gate refuses; the deployment keeps the reason",
            )
    stage = commands.add_parser("stage", help="run one stage on what is there", parents=[common])
    stage.add_argument("name", metavar="NAME", help="e.g. train")
    stage.set_defaults(command=_stage)
    _add_logs(commands, common)
    _add_models(commands, common)
    _add_unit(commands, common)
    _add_labels(commands, common)
    shown = commands.add_parser("settings", help="print every setting", parents=[common])
    shown.add_argument("--resolved", action="store_true", help="as they are in effect, as JSON")
    shown.set_defaults(command=_show_settings)
    return parser


def _add_logs(commands: Any, common: argparse.ArgumentParser) -> None:
    text = "show what the stages of a run have said"
    logs = commands.add_parser("logs", help=text, description=text, parents=[common])
    logs.add_argument("stage", nargs="?", default="", metavar="STAGE", help="only this one")
    logs.add_argument("-f", "--follow", action="store_true", help="go on while the run is at work")
    logs.add_argument("--run", default="", metavar="RUN", help="another run than the last")
    logs.set_defaults(command=_logs)


def _add_models(commands: Any, common: argparse.ArgumentParser) -> None:
    text = "list the versions of the served model, with their scores"
    shown = commands.add_parser("models", help=text, description=text, parents=[common])
    shown.set_defaults(command=_models)
    text = "let an older version be live again, in seconds"
    back = commands.add_parser("rollback", help=text, description=text, parents=[common])
    back.add_argument(
        "version", nargs="?", default="", metavar="VERSION", help="the one before, if not named"
    )
    back.set_defaults(command=_rollback)


def _add_unit(commands: Any, common: argparse.ArgumentParser) -> None:
    from driver.unit_file import SYSTEM_UNITS

    text = "let systemd call `driver recover` at boot"
    unit = commands.add_parser("install-unit", help=text, description=text, parents=[common])
    unit.add_argument("--print", action="store_true", help="show the unit, write nothing")
    unit.add_argument(
        "--folder", type=Path, default=SYSTEM_UNITS, help="where to write it (%(default)s)"
    )
    unit.set_defaults(command=_install_unit)


def _add_labels(commands: Any, common: argparse.ArgumentParser) -> None:
    labels = commands.add_parser("labels", help="show, export or import labels")
    ways = labels.add_subparsers(required=True, metavar="report|export|import")
    text = "write the report on the last labelling, a failed one included, as an HTML page"
    shown = ways.add_parser("report", help=text, description=text, parents=[common])
    shown.add_argument("--out", type=Path, default=Path("labels.html"), help="(%(default)s)")
    shown.set_defaults(command=_report_labels)
    text = "write every answer of the teacher that this workspace keeps to a JSONL file"
    out = ways.add_parser("export", help=text, description=text, parents=[common])
    out.add_argument("file", type=Path, metavar="FILE")
    out.set_defaults(command=_export_labels)
    text = "take exported answers, or the labels of other tools; only what keeps the rules counts"
    into = ways.add_parser("import", help=text, description=text, parents=[common])
    into.add_argument("files", type=Path, nargs="+", metavar="FILE")
    into.set_defaults(command=_import_labels)


if __name__ == "__main__":
    sys.exit(main())
