"""Settings: one YAML file, then the environment, then `--set`; typed, with every error named."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from contracts import params, stages
from contracts.errors import SettingsInvalid
from contracts.stage import Params
from driver import yaml_text
from driver.docker_tls import Tls

ENV_PREFIX = "RETRAIN__"
"""`RETRAIN__TRAIN__LEARNING_RATE=1e-4` is `train.learning_rate`."""
DEFAULT_FILE = Path("retrain.yaml")
_TEACHER = re.compile(
    r"openai\+https?://[^\s/#]+(/[^\s#]*)?(#\S+)?|(https?://)?(?![^/]*://)[^\s#+]+"
)


class ComposeSettings(Params):
    """A backend that is a service of a compose project."""

    folder: Path
    """The project's folder."""
    files: tuple[str, ...] = ()
    """Compose files, relative to the folder; empty: those that compose finds itself."""
    service: str
    """The backend's service in it."""
    environment: dict[str, str] = {}
    """Variables for compose, e.g. OLLAMA_MODEL: with a new value the container is made anew."""

    @field_validator("folder")
    @classmethod
    def _absolute(cls, folder: Path) -> Path:
        return folder.expanduser().resolve()  # `driver recover` is called from anywhere


class BackendSettings(Params):
    """The application whose model is retrained."""

    url: str = Field("http://127.0.0.1:8000", pattern=r"^https?://[^\s]+$")
    """Where it answers."""
    container: str = Field("", pattern=r"^\S*$")
    """Name of its container, which is stopped for the GPU window; or `compose`."""
    compose: ComposeSettings | None = None
    """In place of `container`, a service of a compose project: {folder, service, files: [],
    environment: {}}. With another OLLAMA_MODEL there the container is made anew."""
    docker_host: str = Field("", pattern=r"^(ssh|unix|tcp|http|https|npipe)://\S+$|^$")
    """The engine that runs it, e.g. ssh://user@host; empty: the one that runs the stages."""
    docker_tls: Tls | None = None
    """For one at tcp://: {cert_path, verify}, or false for one without TLS; None: as
    DOCKER_CERT_PATH and DOCKER_TLS_VERIFY."""
    stop_timeout_s: int = Field(120, ge=1)
    """Seconds it gets to finish its work; gunicorn itself gives up after 60."""
    healthy_timeout_s: float = Field(300, gt=0)
    """How long it may take to come back healthy."""
    wait_for_reprocess_s: float = Field(0, ge=0)
    """How long to wait for a bulk reprocess under way, which a stop would lose; after that, and
    with 0 at once, it is stopped with a warning."""
    repository: Path | None = None
    """A checkout of its code, which `driver task check`, and every run first, hold against the
    task; it is only read."""

    @field_validator("repository", mode="before")
    @classmethod
    def _none_if_empty(cls, folder: Any) -> Any:
        return None if isinstance(folder, str) and not folder.strip() else folder

    @field_validator("repository")
    @classmethod
    def _of_the_user(cls, folder: Path | None) -> Path | None:
        return folder.expanduser() if folder else None


class WindowSettings(Params):
    """When the backend is away."""

    policy: Literal["gpu", "run", "label_beside"] = "gpu"
    """`gpu`: from the first stage that needs the GPU and really runs, to the last. `run`: as long
    as the whole run. `label_beside`: as `gpu`, but while the teacher labels the backend stays up
    with its own LLM switched off."""


class RetrySettings(Params):
    """How often a stage is started again after a failure that may pass (a kill, a hang)."""

    times: int = Field(2, ge=0, le=10)
    """For every stage without a number of its own."""
    pause_s: float = Field(5, ge=0)
    """Before the first time, in seconds; doubled for each that follows."""
    stages: dict[str, Annotated[int, Field(ge=0, le=10)]] = {}
    """By stage name, e.g. {train: 5}."""


class LimitSettings(Params):
    """When a stage in a container or process counts as hanging, and is stopped."""

    silence_s: float = Field(3600, gt=0)
    """Longest time without progress or a line in the log."""
    hours: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Longest time in all, by stage name, e.g. {train: 6}: from the start of its container, also
    where another driver has gone on with that. A stage that reaches it is not started again."""


class GpuSettings(Params):
    """Which GPU training takes, and what may be stopped for it."""

    devices: tuple[str, ...] = ()
    """Indices or UUIDs as `nvidia-smi -L` shows them, e.g. [1]; empty: those that the trainer's
    service in the compose file reserves (the first one, as shipped)."""
    needed_mib: int | None = Field(None, ge=1)
    """Memory that has to be free on each of them; None: 90 % of it."""
    free_timeout_s: float = Field(60, gt=0)
    """How long to wait for the memory once every model is unloaded and all is stopped that may."""
    may_stop: tuple[str, ...] = ()
    """Containers on this host, by name or pattern (jupyter*), that are stopped if they hold the
    memory, and started again when the service comes back. Not Ollama's own: evaluate asks it."""
    may_kill: tuple[str, ...] = ()
    """Programs outside of containers, by a pattern of the whole command line (*python
    train.py*), that are ended if they hold the memory. Nobody starts them again."""
    stop_timeout_s: int = Field(30, ge=1)
    """Seconds that each of them gets to end by itself."""

    @field_validator("devices", mode="before")
    @classmethod
    def _texts(cls, devices: Any) -> Any:
        many = devices if isinstance(devices, list | tuple) else [devices]
        return [str(each) if type(each) is int else each for each in many]


class DockerSettings(Params):
    """How stage containers are run."""

    compose_file: str = "compose.retrain.yml"
    """The declaration of the stage images, relative to the checkout."""


class Settings(Params):
    """Everything a user can set. Each stage has a section of its own name."""

    workspace: Path = Path("workspace")
    """Folder for everything that the driver keeps, relative to the current directory."""
    task: str = "liga_relevance"
    """The task definition, a package below tasks/."""
    runner: Literal["docker", "process"] = "docker"
    """`docker` runs each stage in its container, `process` as a process of this machine."""
    engine: Literal["ollama", "llamacpp"] = "ollama"
    """The serving engine: a running Ollama (OLLAMA_HOST), or llama.cpp from its Python wheel."""
    teachers: tuple[str, ...] = ()
    """Servers that share the labelling: addresses of Ollama, or openai+URL[#MODEL] for vLLM,
    llama-server and others of that protocol (key: OPENAI_API_KEY). Empty: the serving engine.
    One of them must have the teacher from the start, and of those of Ollama one must have told its
    digest; the others may come and go."""
    min_free_gb: float | None = Field(None, ge=0)
    """Free disk space in GB that a run demands; None derives it from the base model's size."""
    backend: BackendSettings | None = None
    """The application; without it no container is stopped and nothing is reprocessed."""
    accept_drift: bool = False
    """Go on although the backend could not store or show an answer; `run --accept-drift` sets it,
    and the run notes what was accepted."""
    window: WindowSettings = WindowSettings()
    retry: RetrySettings = RetrySettings()
    limits: LimitSettings = LimitSettings()
    gpu: GpuSettings = GpuSettings()
    docker: DockerSettings = DockerSettings()
    snapshot: params.SnapshotParams = params.SnapshotParams()
    fetch: params.FetchParams
    label: params.LabelParams = params.LabelParams()
    split: params.SplitParams = params.SplitParams()
    train: params.TrainParams = params.TrainParams()
    merge: params.MergeParams = params.MergeParams()
    gguf: params.GgufParams = params.GgufParams()
    evaluate: params.EvaluateParams = params.EvaluateParams()
    deploy: params.DeployParams = params.DeployParams()
    restore: params.RestoreParams = params.RestoreParams()
    reprocess: params.ReprocessParams = params.ReprocessParams()
    verify: params.VerifyParams = params.VerifyParams()

    @field_validator("workspace")
    @classmethod
    def _possible(cls, workspace: Path) -> Path:
        if "\0" in str(workspace):
            raise ValueError("a path cannot hold a null byte")
        return workspace

    @field_validator("teachers")
    @classmethod
    def _servers(cls, teachers: tuple[str, ...]) -> tuple[str, ...]:
        for each in teachers:
            if not _TEACHER.fullmatch(each):
                raise ValueError(f"{each!r} is no address, nor openai+http://HOST/v1[#MODEL]")
        if len(set(teachers)) < len(teachers):
            raise ValueError("a server is named twice, and would get twice its requests")
        return teachers

    @model_validator(mode="before")
    @classmethod
    def _names_the_model(cls, values: Any) -> Any:
        """Name the model after the task, where the settings give it no name."""
        if not isinstance(values, dict):
            return values
        deploy = values.get("deploy", {})
        if not isinstance(deploy, dict) or deploy.get("name"):
            return values
        task = str(values.get("task", cls.model_fields["task"].default))
        return {**values, "deploy": {**deploy, "name": task.replace("_", "-")}}

    @model_validator(mode="after")
    def _names_stages(self) -> Settings:
        unknown = {*self.retry.stages, *self.limits.hours} - stages.BY_NAME.keys()
        if unknown:
            raise ValueError(f"retry.stages and limits.hours name no stage {sorted(unknown)}")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        if self.runner == "docker" and self.engine == "llamacpp":
            raise ValueError(
                "engine=llamacpp serves inside the stage's own process and is not in the images; "
                "use runner=process with it, or engine=ollama"
            )
        if self.snapshot.source == "backend" and self.backend is None:
            raise ValueError("snapshot.source=backend needs the section backend")
        if self.backend and not self.backend.container and self.backend.compose is None:
            raise ValueError("backend.container names no container, and backend.compose no service")
        if self.snapshot.source == "files" and not self.snapshot.items:
            raise ValueError("snapshot.items names no files")
        self._fits_an_adapter()
        if self.train.sharding == "fsdp" and len(self.gpu.devices) == 1:
            raise ValueError(
                "train.sharding=fsdp divides the base among GPUs; gpu.devices names one"
            )
        if self.gguf.way == "one_pass" and self.merge.dtype != "bf16":
            raise ValueError(
                "gguf.way=one_pass rounds to bf16 as a merge does; "
                f"merge.dtype={self.merge.dtype} needs gguf.way=two_step, or auto"
            )
        return self

    def _fits_an_adapter(self) -> None:
        if self.deploy.form == "merged":
            return
        if self.engine == "llamacpp":
            raise ValueError("deploy.form=adapter needs engine=ollama, which has the base model")
        if self.gguf.imatrix:
            raise ValueError("gguf.imatrix is for quantising, and deploy.form=adapter does none")


def load(
    file: Path, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> Settings:
    """Read the settings; later sources win: file, `RETRAIN__…` variables, `--set key=value`.

    Raises `SettingsInvalid` that names the key, what is wrong with it, and a likely spelling.
    """
    values = _read(file)
    for name, value in sorted(environ.items()):
        if name.startswith(ENV_PREFIX):
            _put(values, _keys(name), value, origin=f"the environment variable {name}")
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise SettingsInvalid(
                f"--set {override} has no value", todo="Write --set section.key=value."
            )
        _put(values, key.strip().split("."), value, origin=f"--set {override}")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsInvalid(f"the settings are not valid ({file})", why=_explain(error)) from None


def _keys(variable: str) -> list[str]:
    """Return the keys that an environment variable names; the backend's own keep their case."""
    keys = variable.removeprefix(ENV_PREFIX).split("__")
    lower = [key.lower() for key in keys]
    named = len(keys) - 1 if lower[-2:-1] == ["environment"] else len(keys)
    return lower[:named] + keys[named:]


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsInvalid(
            f"there is no settings file {file}", todo="Name one with --config FILE."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"cannot read {file}", why=str(error)) from None
    values = yaml_text.load(text, str(file))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsInvalid(f"{file} is not a mapping of keys to values")
    return values


def _put(values: dict[str, Any], keys: list[str], text: str, *, origin: str) -> None:
    """Set one key from text, which is read as YAML, so that numbers and lists can be given."""
    if not all(keys):
        raise SettingsInvalid(f"{origin} names no key", todo="Write --set section.key=value.")
    for key in keys[:-1]:
        inner = values.get(key)
        if inner is None:
            inner = values[key] = {}
        if not isinstance(inner, dict):
            raise SettingsInvalid(f"{origin}: {key} is a value, not a section")
        values = inner
    # `1e-4`, which YAML 1.1 takes for a string, is left to pydantic.
    values[keys[-1]] = yaml_text.load(text, origin) if text else ""


def _explain(error: ValidationError) -> str:
    """Turn pydantic's errors into lines that name the key as the user writes it."""
    lines = []
    for each in error.errors(include_url=False):
        key = ".".join(str(part) for part in each["loc"])
        if each["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_suggestion(each['loc'])}")
        elif each["type"] == "missing":
            lines.append(f"{key}: is missing")
        else:
            message = each["msg"].removeprefix("Value error, ")
            given = (
                "" if isinstance(each["input"], dict | Params) else f" (given: {each['input']!r})"
            )
            lines.append(f"{key + ': ' if key else ''}{message}{given}")
    return "\n     ".join(lines)


def _suggestion(location: tuple[int | str, ...]) -> str:
    model: type[Params] | None = Settings
    for part in location[:-1]:
        model = section(str(part)) if model is Settings else None
    if model is None:
        return ""
    close = difflib.get_close_matches(str(location[-1]), list(model.model_fields), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def section(name: str) -> type[Params] | None:
    """Return the model of a section of the settings; None if `name` is no section."""
    if name == "backend":
        return BackendSettings
    field = Settings.model_fields.get(name)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, Params) else None
