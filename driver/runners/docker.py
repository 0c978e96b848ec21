"""Everything that speaks to the Docker engine: stage containers, and the backend's container."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import docker
import docker.errors
import docker.types

from contracts import files
from contracts.errors import (
    BackendUnavailable,
    DockerUnavailable,
    GpuUnavailable,
    ImageStale,
    StageFailed,
)
from contracts.stage import Stage
from driver.runners import compose
from driver.runners.outcome import Emit, Listener, failure

LABEL_STAGE = "retrain.stage"
LABEL_JOB = "retrain.job"
"""Workspace and fingerprint of the job, so that a restarted driver finds its container."""
_MOUNT = Path("/workspace")
_STOP_GRACE_S = 10
_PING_TIMEOUT_S = 10


def connect() -> docker.DockerClient:
    """Return a client for DOCKER_HOST; `DockerUnavailable` when no engine answers."""
    try:
        client = docker.from_env(timeout=_PING_TIMEOUT_S)
        client.ping()
        # A create waits on the disk and a log stream on the stage: no time-out from here on.
        client.api.timeout = None
        return client
    except docker.errors.DockerException as error:
        raise DockerUnavailable("no Docker engine answers", why=str(error)) from error


class DockerRunner:
    """Runs each stage in its container, as compose.retrain.yml declares it."""

    def __init__(self, workspace: Path, compose_file: Path, *, gpu: bool) -> None:
        self._workspace = workspace.resolve()
        self._gpu = gpu
        """False leaves the GPU reservation out: train.device=cpu."""
        environ = {**os.environ, **_identity(), "RETRAIN_WORKSPACE": str(self._workspace)}
        self._services = compose.read(compose_file, environ)
        self._client = connect()
        self._image_ids: dict[str, str] = {}

    def check(self, stages: Sequence[Stage]) -> None:
        """Raise `ImageStale` for an image that is not built, or from other code than is here."""
        for image in sorted({stage.image for stage in stages if stage.image}):
            self._check_code(self._services[image].image, self._image_id(image))

    def _check_code(self, name: str, image_id: str) -> None:
        try:
            output = self._client.containers.run(
                image_id,
                entrypoint=["python3", "-m", "contracts"],
                network_mode="none",
                remove=True,
            )
        except docker.errors.ContainerError as error:
            raise ImageStale(f"the image {name} is none of ours", why=str(error)) from error
        there: dict[str, str] = json.loads(output)
        differing = [folder for folder in there if files.code_digest(folder) != there[folder]]
        if differing:
            raise ImageStale(
                f"the image {name} is not of this checkout",
                why=f"built from another state of {', '.join(differing)}",
            )

    def _image_id(self, image: str) -> str:
        """Return the image behind a service's name, the same all through a run.

        What was checked is what runs, even if somebody builds another one meanwhile.
        """
        if image not in self._image_ids:
            name = self._services[image].image
            try:
                self._image_ids[image] = str(self._client.images.get(name).id)
            except docker.errors.ImageNotFound as error:
                raise ImageStale(f"the image {name} is not built") from error
        return self._image_ids[image]

    def survives(self, stage: Stage, fingerprint: str) -> bool:
        """Return whether a container of this very stage runs, or waits to be collected."""
        return bool(self._left_behind(stage, fingerprint))

    def _left_behind(self, stage: Stage, fingerprint: str) -> list[Any]:
        key = f"{self._workspace}:{fingerprint}"
        filters = {"label": [f"{LABEL_STAGE}={stage.name}", f"{LABEL_JOB}={key}"]}
        return list(self._client.containers.list(all=True, filters=filters))

    def run(
        self, stage: Stage, job: Path, log: Path, emit: Emit, environ: Mapping[str, str]
    ) -> None:
        """Run the stage, or attach to its container where a killed driver left one running."""
        _hand_over(job.parent, self._workspace / "cache")
        with self._container(stage, job, environ) as container:
            with log.open("a", encoding="utf-8") as output:
                listener = Listener(stage, emit, output)
                _follow(container, listener, output)
            exit_code = int(container.wait()["StatusCode"])
            container.reload()
            oom = bool(container.attrs["State"].get("OOMKilled"))
        if exit_code:
            raise failure(stage, exit_code, listener.told, log, oom=oom)

    @contextmanager
    def _container(self, stage: Stage, job: Path, environ: Mapping[str, str]) -> Iterator[Any]:
        """Yield the running container; remove it afterwards, stopped first if need be.

        Not on SIGKILL: then it runs on, and the next driver finds it by its labels.
        RETRAIN_KEEP_CONTAINERS=1 keeps it, for debugging.
        """
        key = f"{self._workspace}:{job.parent.name}"
        left = self._left_behind(stage, job.parent.name)
        for stale in [c for c in left if c.status == "created"]:
            stale.remove(force=True)
        left = [c for c in left if c.status != "created"]
        container = left[0] if left else self._start(stage, job, environ, key)
        try:
            yield container
        finally:
            if not os.environ.get("RETRAIN_KEEP_CONTAINERS"):
                container.stop(timeout=_STOP_GRACE_S)
                container.remove(force=True)

    def _start(self, stage: Stage, job: Path, environ: Mapping[str, str], key: str) -> Any:
        image = stage.image or ""
        service = self._services[image]
        inside = _MOUNT / job.resolve().relative_to(self._workspace)
        options = container_options(service, gpu=self._gpu)
        options["environment"] |= environ
        options["labels"] = {LABEL_STAGE: stage.name, LABEL_JOB: key}
        try:
            container = self._client.containers.create(
                self._image_id(image), [str(inside)], **options
            )
        except docker.errors.ImageNotFound as error:
            raise ImageStale(f"the image {service.image} is not built") from error
        try:
            container.start()
        except docker.errors.APIError as error:
            container.remove(force=True)
            if "could not select device driver" in str(error):
                raise GpuUnavailable(
                    "Docker cannot give a container the GPU",
                    why="the NVIDIA container toolkit is not set up for the engine",
                    todo="sudo nvidia-ctk runtime configure --runtime=docker && "
                    "sudo systemctl restart docker",
                ) from error
            raise StageFailed(f"stage {stage.name} did not start", why=str(error)) from error
        return container


def container_options(service: compose.Service, *, gpu: bool) -> dict[str, Any]:
    """Return the SDK's arguments for a service of the compose file."""
    options: dict[str, Any] = {
        "user": service.user,
        "read_only": service.read_only,
        "init": service.init,
        "tmpfs": dict(_tmpfs(entry) for entry in service.tmpfs),
        "cap_drop": list(service.cap_drop),
        "security_opt": list(service.security_opt),
        "mem_limit": service.mem_limit,
        "pids_limit": service.pids_limit,
        "shm_size": service.shm_size,
        "network_mode": service.network_mode,
        "volumes": list(service.volumes),
        "environment": dict(service.environment),
        "ulimits": [
            docker.types.Ulimit(name=name, soft=limit, hard=limit)
            for name, limit in service.ulimits.items()
        ],
    }
    if gpu and service.gpus:
        options["device_requests"] = [
            docker.types.DeviceRequest(
                driver=device["driver"],
                count=device.get("count", -1),
                capabilities=[device["capabilities"]],
            )
            for device in service.gpus
        ]
    return {name: value for name, value in options.items() if value is not None}


def _tmpfs(entry: str) -> tuple[str, str]:
    path, _, options = entry.partition(":")
    return path, options


def _identity() -> dict[str, str]:
    """Run stages as the user of the driver, so that files in the workspace are theirs.

    Never as root: for root, and under sudo, it is the invoking user, else 1000.
    """
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        uid, gid = int(os.environ.get("SUDO_UID", "1000")), int(os.environ.get("SUDO_GID", "1000"))
    return {"RETRAIN_UID": str(uid), "RETRAIN_GID": str(gid)}


def _hand_over(*folders: Path) -> None:
    """Give root's files to the user of the container, which has no capability to override."""
    if os.getuid() != 0:
        return
    identity = _identity()
    uid, gid = int(identity["RETRAIN_UID"]), int(identity["RETRAIN_GID"])
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)


def _follow(container: Any, listener: Listener, output: IO[str]) -> None:
    """Pass the container's stdout to the listener line by line, and its stderr to the log.

    From the container's beginning, so that nothing is lost before the attach.
    """
    stream = container.attach(stream=True, logs=True, demux=True, stdout=True, stderr=True)
    pending = b""
    for stdout, stderr in stream:
        if stderr:
            output.write(stderr.decode("utf-8", errors="replace"))
            output.flush()
        *lines, pending = (pending + (stdout or b"")).split(b"\n")
        for line in lines:
            listener.line(line.decode("utf-8", errors="replace"))
    listener.line(pending.decode("utf-8", errors="replace"))


class ContainerHost:
    """Stops and starts the containers of others: the backend's."""

    def __init__(self) -> None:
        self._client = connect()

    def state(self, name: str) -> dict[str, Any]:
        """Return id, whether it runs, and how often it was restarted.

        Raises `BackendUnavailable` when there is no such container.
        """
        container = self._get(name)
        return {
            "id": container.id,
            "running": container.attrs["State"]["Running"],
            "restarts": container.attrs["RestartCount"],
        }

    def stop(self, name: str, timeout_s: int) -> int:
        """Stop a container and return its exit code; 137 means that it did not stop in time."""
        container = self._get(name)
        container.stop(timeout=timeout_s)
        container.reload()
        return int(container.attrs["State"]["ExitCode"])

    def start(self, name: str) -> None:
        """Start a container; one that runs already is left alone."""
        try:
            self._get(name).start()
        except docker.errors.APIError as error:
            raise BackendUnavailable(
                f"the container {name} does not start", why=str(error)
            ) from error

    def _get(self, name: str) -> Any:
        try:
            return self._client.containers.get(name)
        except docker.errors.NotFound as error:
            raise BackendUnavailable(
                f"there is no container {name}",
                why="backend.container names none on this engine",
                todo="`docker ps -a` lists them; set backend.container.",
            ) from error
