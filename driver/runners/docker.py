"""Stage containers on the Docker engine; driver/adapters/containers.py has those of others."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.types

from contracts import files, test_set
from contracts.entrypoint import IMAGE_ID, RESULT_FILE
from contracts.errors import GpuUnavailable, ImageStale, StageFailed
from contracts.stage import Stage
from driver.adapters.containers import connect
from driver.runners import compose, torch_cuda
from driver.runners.follow import BROKEN, follow, is_running, open_anew
from driver.runners.leftovers import StageContainers, put_away
from driver.runners.outcome import Emit, Limits, Listener, failure
from driver.runners.watchdog import Watchdog

_MOUNT = Path("/workspace")


class DockerRunner:
    """Runs each stage in its container, as compose.retrain.yml declares it."""

    def __init__(
        self, workspace: Path, compose_file: Path, *, gpu: bool, devices: Sequence[str] = ()
    ) -> None:
        self._workspace = workspace.resolve()
        self._gpu = gpu
        """False leaves the GPU reservation out: train.device=cpu."""
        self._devices = devices
        """In place of the reserved ones: gpu.devices."""
        environ = {**os.environ, **_identity(), "RETRAIN_WORKSPACE": str(self._workspace)}
        self._services = compose.read(compose_file, environ)
        self._client = connect()
        self._containers = StageContainers(workspace, self._client)
        self._log_begins: dict[str, int] = {}
        """By container, how long the log was before it."""
        self._image_ids: dict[str, str] = {}

    def check(self, stages: Sequence[Stage]) -> None:
        """Raise `ImageStale` for an image that is not built, or from other code than is here."""
        for image in sorted({stage.image for stage in stages if stage.image}):
            self._check_code(self._services[image].image, self._image_id(image))

    def _check_code(self, name: str, image_id: str) -> None:
        try:
            output = self._ask(image_id, ["python3", "-m", "contracts"])
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

    def cuda(self, stage: Stage) -> tuple[int, int] | None:
        """Return the CUDA that the PyTorch in the stage's image is built for; None for a CPU's."""
        image = stage.image or ""
        try:
            output = self._ask(self._image_id(image), ["python3", "-c", torch_cuda.SCRIPT])
        except docker.errors.ContainerError as error:
            name = self._services[image].image
            raise ImageStale(f"the image {name} has no PyTorch", why=str(error)) from error
        return torch_cuda.parse(output.decode())

    def _ask(self, image_id: str, command: list[str]) -> bytes:
        """Return what a short command in an image says; `ContainerError` where it fails.

        Named, so that a signal at any moment leaves none; and labelled, since it is this client
        that removes it: a driver that is killed meanwhile leaves it behind.
        """
        name = f"retrain-probe-{uuid.uuid4().hex[:12]}"
        try:
            output: bytes = self._client.containers.run(
                image_id,
                command[1:],
                entrypoint=command[:1],
                name=name,
                network_mode="none",
                labels=self._containers.probe_labels(),
            )
        finally:
            with suppress(docker.errors.APIError, *BROKEN):
                self._client.api.remove_container(name, force=True)
        return output

    def survives(self, stage: Stage, fingerprint: str) -> bool:
        """Return whether a container of this very stage runs, or waits to be collected."""
        published = (self._workspace / "store" / stage.name / fingerprint / RESULT_FILE).exists()
        return any(_usable(each, published) for each in self._containers.of(stage, fingerprint))

    def run(
        self,
        stage: Stage,
        job: Path,
        log: Path,
        emit: Emit,
        environ: Mapping[str, str],
        limits: Limits,
    ) -> None:
        """Run the stage, or attach to its container where a killed driver left one running."""
        _hand_over(job.parent, self._workspace / "cache", self._workspace / test_set.FOLDER)
        with (
            self._container(stage, job, environ) as container,
            open_anew(log, container.id, self._log_begins) as output,
            log.open("a", encoding="utf-8") as errors,  # written from a thread of its own
        ):
            age_s = running_s(container, self._client)
            watchdog = Watchdog(stage, limits, log, partial(_kill, container), age_s)
            listener = Listener(stage, watchdog.listening(emit), output)
            with watchdog.watching():
                exit_code = follow(container, listener, errors)
            limit = None
            if container.attrs["State"].get("OOMKilled"):
                limit = int(container.attrs["HostConfig"]["Memory"])
        if exit_code:
            raise failure(stage, exit_code, listener.told, log, memory_limit=limit)

    def collect(self, stage: Stage, job: Path, log: Path, emit: Emit) -> None:
        """Put away the containers that a dead driver has left of a job that has its result, each
        with the rest of what it has said; how it ended is no matter."""
        for container in self._containers.of(stage, job.parent.name):
            try:
                with (
                    open_anew(log, container.id, self._log_begins) as output,
                    log.open("a", encoding="utf-8") as errors,
                ):
                    follow(container, Listener(stage, emit, output), errors)
            finally:
                put_away(container)

    @contextmanager
    def _container(self, stage: Stage, job: Path, environ: Mapping[str, str]) -> Iterator[Any]:
        """Yield the running container; put it away afterwards, stopped first if need be.

        Not on SIGKILL: then it runs on, and the next driver finds it by its labels.
        """
        container = self._left_behind(stage, job) or self._start(stage, job, environ)
        try:
            yield container
        finally:
            put_away(container)

    def _left_behind(self, stage: Stage, job: Path) -> Any | None:
        """Return the container that a dead driver has left of this job, if it can be gone on with;
        put away all others of it."""
        found = None
        published = (job.parent / RESULT_FILE).exists()
        for container in self._containers.of(stage, job.parent.name):
            if found is None and _usable(container, published):
                found = container
            else:
                put_away(container)
        return found

    def _start(self, stage: Stage, job: Path, environ: Mapping[str, str]) -> Any:
        image = stage.image or ""
        service = self._services[image]
        inside = _MOUNT / job.resolve().relative_to(self._workspace)
        options = container_options(service, gpu=self._gpu, devices=self._devices)
        image_id = self._image_id(image)
        options["environment"] |= {**environ, IMAGE_ID: image_id}
        options["labels"] = self._containers.labels(stage, job.parent.name)
        try:
            container = self._client.containers.create(image_id, [str(inside)], **options)
        except docker.errors.ImageNotFound as error:
            raise ImageStale(f"the image {service.image} is not built") from error
        except KeyboardInterrupt:  # the engine may have made it all the same
            for made in self._containers.of(stage, job.parent.name):
                put_away(made)
            raise
        try:
            container.start()
        except KeyboardInterrupt:
            put_away(container)
            raise
        except docker.errors.APIError as error:
            put_away(container)
            if "could not select device driver" in str(error):
                raise GpuUnavailable(
                    "Docker cannot give a container the GPU",
                    why="the NVIDIA container toolkit is not set up for the engine",
                    todo="sudo nvidia-ctk runtime configure --runtime=docker && "
                    "sudo systemctl restart docker",
                ) from error
            raise StageFailed(f"stage {stage.name} did not start", why=str(error)) from error
        return container


def _usable(container: Any, published: bool) -> bool:
    """Return whether a job's container can be gone on with.

    One that was never started cannot. One that ended is collected: its failure is told once. But
    with a result there is nothing to collect, and the job is to be done again.
    """
    ended = container.status in {"exited", "dead", "removing"}
    return container.status != "created" and not (published and ended)


def running_s(container: Any, client: Any) -> float:
    """Return for how long a container has run, in seconds; 0 for one that has ended.

    By the engine's own clock, where it tells: the host of DOCKER_HOST may have another time than
    this one. Raises as `is_running` does.
    """
    if not is_running(container):
        return 0.0
    began, now = datetime.fromisoformat(container.attrs["State"]["StartedAt"]), datetime.now(UTC)
    with suppress(*BROKEN):
        now = datetime.fromisoformat(client.info()["SystemTime"])
    return max(0.0, (now - began).total_seconds())


def _kill(container: Any) -> str:
    """Kill a container that hangs; return what may explain it."""
    paused = ""
    with suppress(*BROKEN):
        container.reload()
        if container.status == "paused":
            paused = f"; its container was paused (`docker unpause {container.name}`)"
            container.unpause()  # a frozen process does not die everywhere
        container.kill()
    return paused


def container_options(
    service: compose.Service, *, gpu: bool, devices: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the SDK's arguments for a service of the compose file.

    `devices` are indices or UUIDs of GPUs to give it in place of those that it reserves.
    """
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
    if service.logging is not None:
        driver, config = service.logging.driver, service.logging.options
        options["log_config"] = docker.types.LogConfig(type=driver, config=config)
    if gpu and service.gpus:
        options["device_requests"] = [_request(device, devices) for device in service.gpus]
    return {name: value for name, value in options.items() if value is not None}


def _request(device: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return one reservation as the engine takes it: names or a number, never both; -1 is all."""
    names = names or device.get("device_ids", ())
    count = device.get("count", "all")
    many = {"device_ids": list(names)} if names else {"count": -1 if count == "all" else int(count)}
    return docker.types.DeviceRequest(
        driver=device["driver"], capabilities=[device["capabilities"]], **many
    )


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
