"""The commands: `python -m driver run|plan|status|stage|doctor|labels|recover|settings`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from contracts.errors import Interrupted, RetrainError, SettingsInvalid, from_os_error

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
    for ending in (signal.SIGTERM, signal.SIGHUP):  # a lost ssh session is no reason for an outage
        signal.signal(ending, _interrupt)
    try:
        return int(arguments.command(arguments))
    except KeyboardInterrupt:
        return _fail(Interrupted("stopped by a signal"))
    except RetrainError as error:
        return _fail(error)
    except OSError as error:
        return _fail(from_os_error(error))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Treat SIGTERM and SIGHUP like Ctrl-C: what is open gets closed, the service restored."""
    raise KeyboardInterrupt


def _fail(error: RetrainError) -> int:
    from driver.report.display import complain

    complain(error)
    return error.exit_code


# --- commands ----------------------------------------------------------------------------------
def _run(arguments: argparse.Namespace) -> int:
    from driver import pipeline, store

    session = _session(arguments)
    with store.lock(session.workspace):
        _restore_left_open(session)
        try:
            pipeline.run(session)
        finally:
            session.close()
    return 0


def _stage(arguments: argparse.Namespace) -> int:
    from driver import pipeline, store

    session = _session(arguments)
    with store.lock(session.workspace):
        _restore_left_open(session)
        try:
            pipeline.run_one(session, arguments.name)
        finally:
            session.close()
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from driver import pipeline
    from driver.report.display import plan_table

    session = _session(arguments)
    plan_table(pipeline.make(session), session.display.console)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from driver.report import status

    return status.show(_settings(arguments).workspace)


def _doctor(arguments: argparse.Namespace) -> int:
    from driver import doctor

    return doctor.show(_session(arguments))


def _recover(arguments: argparse.Namespace) -> int:
    from driver import store
    from driver.window import Window

    workspace = arguments.workspace or _settings(arguments).workspace
    with store.lock(workspace):
        window = Window(workspace, backend=None)
        if not window.is_open:
            print(f"Nothing to recover in {workspace}: no service was left stopped.")
            return 0
        window.close()
    print(f"The service is back and healthy; it was away for {window.away_s:.0f} s.")
    return 0


def _export_labels(arguments: argparse.Namespace) -> int:
    from driver import labels, store

    workspace = _settings(arguments).workspace
    with store.lock(workspace):
        count = labels.export(workspace, arguments.file)
    print(f"{count} rows written to {arguments.file}")
    return 0


def _import_labels(arguments: argparse.Namespace) -> int:
    from driver import labels, store

    session = _session(arguments)
    with store.lock(session.workspace):
        found = labels.take(session.workspace, session.task, arguments.files)
    print(f"{found.taken} labels taken; the label stage asks the teacher for none of these items")
    for kind, count in found.refused.most_common():
        print(f"  refused, {kind}: {count}")
    for example in found.examples:
        print(f"    {example}")
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


def _restore_left_open(session: Session) -> None:
    """Bring back what a driver that died has left stopped."""
    if session.window.is_open:
        session.display.warn("a run that died has left the service stopped; bringing it back first")
        session.window.close()


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
    stage = commands.add_parser("stage", help="run one stage on what is there", parents=[common])
    stage.add_argument("name", metavar="NAME", help="e.g. train")
    stage.set_defaults(command=_stage)
    _add_labels(commands, common)
    shown = commands.add_parser("settings", help="print every setting", parents=[common])
    shown.add_argument("--resolved", action="store_true", help="as they are in effect, as JSON")
    shown.set_defaults(command=_show_settings)
    return parser


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
