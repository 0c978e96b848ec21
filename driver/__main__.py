"""The commands of `python -m driver`; `--help` lists them."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from contracts.errors import (
    Interrupted,
    RetrainError,
    Unforeseen,
)
from contracts.os_errors import from_os_error
from driver import commands, task_commands
from driver.signals import SIGNALS

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
        named = getattr(arguments, "out", None) or getattr(arguments, "file", None)
        return _fail(from_os_error(error, named), error)
    except Exception as error:  # noqa: BLE001  # the last frame: a message in place of a traceback
        if os.environ.get("RETRAIN_TRACEBACK"):
            traceback.print_exc()
        return _fail(Unforeseen(f"unforeseen {type(error).__name__}", why=str(error)[:500]), error)


def _fail(error: RetrainError, raised: BaseException) -> int:
    from driver.report.display import complain

    complain(error, raised)
    return error.exit_code


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
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(subparsers, common)
    for name, command, text in (
        (
            "plan",
            commands.plan,
            "say what a run would do about each stage, and why; change nothing",
        ),
        ("status", commands.status, "show the last run, or the one under way"),
        ("doctor", commands.doctor, "say what this host lacks, and the command that mends it"),
        ("recover", commands.recover, "bring back a service that a killed run has left stopped"),
    ):
        sub = subparsers.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(command=command)
    stage = subparsers.add_parser("stage", help="run one stage on what is there", parents=[common])
    stage.add_argument("name", metavar="NAME", help="e.g. train")
    stage.set_defaults(command=commands.stage)
    _add_reprocess(subparsers, common)
    _add_logs(subparsers, common)
    _add_models(subparsers, common)
    _add_report(subparsers, common)
    _add_unit(subparsers, common)
    _add_label(subparsers, common)
    _add_labels(subparsers, common)
    _add_task(subparsers, common)
    shown = subparsers.add_parser("settings", help="print every setting", parents=[common])
    shown.add_argument("--resolved", action="store_true", help="as they are in effect, as JSON")
    shown.set_defaults(command=commands.show_settings)
    return parser


def _add_run(subparsers: Any, common: argparse.ArgumentParser) -> None:
    text = "do all that has to be done: label, train, evaluate, deploy, verify"
    run = subparsers.add_parser("run", help=text, description=text, parents=[common])
    run.add_argument(
        "--force",
        metavar="REASON",
        help="let a model go live that the gate refuses; the deployment keeps the reason",
    )
    run.add_argument(
        "--accept-drift",
        action="store_true",
        help="go on although the backend could not store or show an answer (task check)",
    )
    run.set_defaults(command=commands.run)


def _add_reprocess(subparsers: Any, common: argparse.ArgumentParser) -> None:
    text = "give the backend's items the live model's answers; show how far that is, or undo it"
    again = subparsers.add_parser("reprocess", help=text, description=text, parents=[common])
    ways = again.add_mutually_exclusive_group()
    ways.add_argument("--status", action="store_true", help="how far it is, by its files")
    ways.add_argument(
        "--restore",
        nargs="?",
        const="",
        metavar="RUN",
        help="show what differs from before the reprocess of this run (the newest, if not named)",
    )
    again.add_argument(
        "--yes", action="store_true", help="with --restore: write it back, as far as possible"
    )
    again.add_argument("--out", type=Path, metavar="FILE", help="with --restore: as JSON lines")
    again.add_argument(
        "--backend-moved",
        action="store_true",
        help="the backend of the newest reprocess, or of RUN, has another address now",
    )
    again.add_argument(
        "--unverified",
        action="store_true",
        help="take the live model's answers although it is not verified, or was taken back",
    )
    again.set_defaults(command=commands.reprocess)


def _add_logs(subparsers: Any, common: argparse.ArgumentParser) -> None:
    text = "show what the stages of a run have said"
    logs = subparsers.add_parser("logs", help=text, description=text, parents=[common])
    logs.add_argument("stage", nargs="?", default="", metavar="STAGE", help="only this one")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the run has ended")
    logs.add_argument("--run", default="", metavar="RUN", help="another run than the last")
    logs.set_defaults(command=commands.logs)


def _add_models(subparsers: Any, common: argparse.ArgumentParser) -> None:
    text = "list the versions of the served model, with their scores"
    shown = subparsers.add_parser("models", help=text, description=text, parents=[common])
    shown.set_defaults(command=commands.models)
    text = "let an older version be live again, in seconds"
    back = subparsers.add_parser("rollback", help=text, description=text, parents=[common])
    back.add_argument("version", nargs="?", metavar="VERSION", help="the one before, if not named")
    back.set_defaults(command=commands.rollback)


def _add_report(subparsers: Any, common: argparse.ArgumentParser) -> None:
    text = "write report.html of a run anew"
    report = subparsers.add_parser("report", help=text, description=text, parents=[common])
    report.add_argument("run", nargs="?", default="", metavar="RUN", help="another than the last")
    report.set_defaults(command=commands.report)
    text = "follow the served model back to the rows it was trained on, and check every digest"
    chain = subparsers.add_parser("verify-lineage", help=text, description=text, parents=[common])
    chain.add_argument("run", nargs="?", default="", metavar="RUN", help="what this run has made")
    chain.set_defaults(command=commands.verify_lineage)


def _add_unit(subparsers: Any, common: argparse.ArgumentParser) -> None:
    from driver.unit_file import SYSTEM_UNITS

    text = "let systemd call `driver recover` at boot"
    unit = subparsers.add_parser("install-unit", help=text, description=text, parents=[common])
    unit.add_argument("--print", action="store_true", help="show the unit, write nothing")
    unit.add_argument(
        "--folder", type=Path, default=SYSTEM_UNITS, help="where to write it (%(default)s)"
    )
    unit.set_defaults(command=commands.install_unit)


def _add_label(subparsers: Any, common: argparse.ArgumentParser) -> None:
    text = "label the items (as `stage label`), or preview what an edit of the task does to a few"
    label = subparsers.add_parser("label", help=text, description=text, parents=[common])
    label.add_argument(
        "--preview",
        type=int,
        metavar="N",
        help="ask about N chosen rows under the task as it was and as it is; change no label",
    )
    label.add_argument(
        "--since",
        default="",
        metavar="REVISION|RUN",
        help="with --preview: as it was when (the last run, if not named)",
    )
    label.add_argument(
        "--out", type=Path, metavar="FILE", help="with --preview: the page (preview.html)"
    )
    label.set_defaults(command=task_commands.label, name="label")


def _add_labels(subparsers: Any, common: argparse.ArgumentParser) -> None:
    labels = subparsers.add_parser("labels", help="show, export or import labels")
    ways = labels.add_subparsers(required=True, metavar="report|export|import")
    text = "write the report on the last labelling, a failed one included, as an HTML page"
    shown = ways.add_parser("report", help=text, description=text, parents=[common])
    shown.add_argument("--out", type=Path, default=Path("labels.html"), help="(%(default)s)")
    shown.set_defaults(command=task_commands.report_labels)
    text = "write every answer of the teacher that this workspace keeps to a JSONL file"
    out = ways.add_parser("export", help=text, description=text, parents=[common])
    out.add_argument("file", type=Path, metavar="FILE")
    out.set_defaults(command=task_commands.export_labels)
    text = "take exported answers, or the labels of other tools; only what keeps the rules counts"
    into = ways.add_parser("import", help=text, description=text, parents=[common])
    into.add_argument("files", type=Path, nargs="+", metavar="FILE")
    into.set_defaults(command=task_commands.import_labels)


def _add_task(subparsers: Any, common: argparse.ArgumentParser) -> None:
    text = "show the task and what an edit costs, write it for others, or hold it against them"
    task = subparsers.add_parser("task", help=text, description=text)
    ways = task.add_subparsers(required=True, metavar="show|render|check|diff|new")
    text = "show fields, prompts, rules and digests, and what has changed since the last run"
    shown = ways.add_parser("show", help=text, description=text, parents=[common])
    shown.add_argument("--json", action="store_true", help="as one JSON object")
    shown.set_defaults(command=task_commands.show_task)
    _add_render(ways, common)
    _add_check(ways, common)
    text = "say what has changed in the task, and what labelling and training that costs"
    diff = ways.add_parser("diff", help=text, description=text, parents=[common])
    diff.add_argument(
        "since",
        nargs="?",
        default="",
        metavar="REVISION|RUN",
        help="since when: a revision of git or a run (the last run, if not named)",
    )
    diff.add_argument("--json", action="store_true", help="as one JSON object")
    diff.set_defaults(command=task_commands.diff_task)
    text = "begin a task of your own: a package below tasks/, and a sample that trains at once"
    new = ways.add_parser("new", help=text, description=text)
    new.add_argument("name", metavar="NAME", help="small letters, digits and underscores")
    new.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME:TYPE[:MEANING]",
        help="a field of the answer, in order: text, flag, score, count, date, list or a|b|c; "
        "? behind the type: may be null. Without any, they are asked for",
    )
    new.add_argument("--language", default="English", help="of the answers' texts")
    new.set_defaults(command=task_commands.new_task)


def _add_render(ways: Any, common: argparse.ArgumentParser) -> None:
    text = "write guide, schema, Modelfile, parser, columns, types … of the task into a folder"
    made = ways.add_parser("render", help=text, description=text, parents=[common])
    made.add_argument(
        "--out", type=Path, metavar="DIR", help="where to (WORKSPACE/rendered/TASK, if not named)"
    )
    made.add_argument(
        "--after", default="", metavar="REVISION", help="the migration's down_revision in Alembic"
    )
    made.set_defaults(command=task_commands.render_task)


def _folder(text: str) -> Path:
    """Return a path; an empty text, as of a variable that is not set, is not the folder here."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; a folder is named, `.` for this one")
    return Path(text)


def _add_check(ways: Any, common: argparse.ArgumentParser) -> None:
    text = "name what differs from the task in the backend, its code, and the deployed model"
    held = ways.add_parser("check", help=text, description=text, parents=[common])
    held.add_argument(
        "--repository",
        type=_folder,
        metavar="DIR",
        help="a checkout of the backend's code (backend.repository, if not named); it is only read",
    )
    held.add_argument(
        "--sent",
        type=Path,
        metavar="FILE",
        help="a request that the backend has sent to /api/chat, recorded as JSON",
    )
    held.add_argument(
        "--patch",
        action="store_true",
        help="print what is mechanical as a diff: `… --patch | git -C DIR apply --allow-empty`",
    )
    held.set_defaults(command=task_commands.check_task)


if __name__ == "__main__":
    sys.exit(main())
