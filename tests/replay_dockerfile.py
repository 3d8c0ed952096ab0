"""Replay the Dockerfile without Docker, in a bare Debian that has nothing but what FROM provides.

Each instruction runs as Docker would run it: RUN in a chroot, COPY from the context that `.dockerignore` leaves; a
stage that builds on another begins with a copy of it. Then the training image's ENTRYPOINT runs as its user, with
`--help` and for two training steps, and the serving image serves what came out until its HEALTHCHECK passes. A missing
step shows, because nothing of this machine is in the chroot but its way to the package index: pip's settings, its
local folders, the certificates.

Everything is mounted in a mount namespace of its own, which ends with the last process in it. So no mount outlives the
replay, and the folder is deleted from outside the namespace, where there never was a mount to delete through.

    sudo .venv/bin/python tests/replay_dockerfile.py [--build-arg BASE_IMAGE=debian:bookworm-slim]
"""

import argparse
import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template

REPOSITORY = Path(__file__).resolve().parents[1]
ENTRY_ARGUMENTS = (["--help"], ["--config", "recipes/quickstart.yaml", "--max_steps", "2"])
TRAINED = "app/runs/quickstart/model"
STOPPING_SECONDS = 10  # before Docker kills

# What an image has beyond debootstrap's minbase: the official Python images bring Python, here Debian's own.
PROVIDED = {"python": "ca-certificates,python3,python3-venv", "debian": ""}
CERTIFICATE_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> None:
    parser = argparse.ArgumentParser(description="Replay the Dockerfile in a bare Debian chroot.")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--mirror", default="", help="where debootstrap reads Debian; unset: its own default")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # the chroot; given by ourselves
    arguments = parser.parse_args()
    if arguments.inside:
        build_arguments = dict(pair.split("=", 1) for pair in arguments.build_arg)
        Replay(arguments.inside, build_arguments, arguments.mirror).run()
        return
    if os.geteuid() != 0:
        sys.exit("A chroot needs root: sudo make docker-replay")
    for command, package in {"debootstrap": "debootstrap", "unshare": "util-linux"}.items():
        if not shutil.which(command):
            sys.exit(f"{command} is missing: apt-get install {package}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder goes then too
    with_namespaces = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    root = Path(tempfile.mkdtemp(prefix="replay-dockerfile-"))
    root.chmod(0o755)  # it becomes the image's /, which every user reads
    try:
        process = subprocess.run([*with_namespaces, sys.executable, *sys.argv, "--inside", str(root)])
    finally:
        delete(root)
    sys.exit(process.returncode)


def delete(root: Path) -> None:
    """Delete a folder, unless something is mounted below it."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    if below := [point for point in mounted if Path(point).is_relative_to(root)]:
        sys.exit(f"Not deleted, because something is mounted there: {', '.join(below)}")
    shutil.rmtree(root)


@dataclass
class Image:
    """A root folder, and what the instructions so far say beside it."""

    root: Path
    arguments: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": IMAGE_PATH})
    folder: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"
    health_check: list[str] = field(default_factory=list)
    start_period: int = 0

    def expand(self, value: str) -> str:
        return Template(value).substitute(self.arguments | self.environment)


class Replay:
    """Carry out a Dockerfile, each stage in a folder of its own below `root`; `image` is the one being built."""

    def __init__(self, root: Path, build_arguments: dict[str, str], mirror: str) -> None:
        self.root = root
        self.mirror = mirror
        self.carried, self.folders = pip_settings()
        self.build_arguments = self.carried | build_arguments
        self.image = Image(root)  # holds the ARGs before the first FROM, which are FROM's alone
        self.outermost = self.image
        self.stages: dict[str, Image] = {}

    def run(self) -> None:
        """Carry out every instruction, then start each image as its user would."""
        for instruction, value in instructions((REPOSITORY / "Dockerfile").read_text(encoding="utf-8")):
            step: Callable[[str], None] | None = getattr(self, f"do_{instruction.lower()}", None)
            if step is None:
                sys.exit(f"{instruction} is not replayed yet: teach tests/replay_dockerfile.py to.")
            announce(f"{instruction} {value}")
            start = time.monotonic()
            step(value)
            print(f"    {time.monotonic() - start:.1f} s", flush=True)
        for name, image in self.stages.items():
            if image.entrypoint and image.user.startswith("0:"):
                sys.exit(f"The image {name} runs as root: USER is missing.")
        self.try_training(self.stages["train"])
        self.try_serving(self.stages["serve"], self.stages["train"].root / TRAINED)
        announce("The Dockerfile holds.")

    def try_training(self, image: Image) -> None:
        for entry_arguments in ENTRY_ARGUMENTS:
            command = [*image.entrypoint, *entry_arguments]
            announce(shlex.join(command))
            self.execute(image, command)

    def try_serving(self, image: Image, model: Path) -> None:
        """Serve a model until the health check passes, and stop as Docker does."""
        call("cp", "--archive", model, image.root / image.environment["MODEL_ID"].lstrip("/"))
        if self.is_healthy(image):
            sys.exit("The health check passes before anything is served.")
        command = [*image.entrypoint, *image.command]
        announce(shlex.join(command))
        server, start = self.start(image, command), time.monotonic()
        while not self.is_healthy(image):
            if server.poll() is not None or time.monotonic() - start > image.start_period:
                sys.exit(f"Not healthy after {time.monotonic() - start:.0f} s: {shlex.join(command)}")
            time.sleep(1)
        print(f"    healthy after {time.monotonic() - start:.1f} s", flush=True)
        server.send_signal(signal.Signals[image.stop_signal])
        server.wait(STOPPING_SECONDS)

    def is_healthy(self, image: Image) -> bool:
        return self.start(image, image.health_check, stderr=subprocess.DEVNULL).wait() == 0

    def do_arg(self, value: str) -> None:
        name, _, default = value.partition("=")
        self.image.arguments[name] = self.build_arguments.get(name, default)

    def do_from(self, value: str) -> None:
        parent, _, name = re.sub(" as ", " AS ", self.outermost.expand(value), flags=re.IGNORECASE).partition(" AS ")
        root = self.root / (name or str(len(self.stages)))
        if parent in self.stages:
            before = self.stages[parent]
            self.unmount(before.root)  # what is mounted is no part of it
            call("cp", "--archive", before.root, root)
            self.mount(before.root)
            self.image = replace(deepcopy(before), root=root)
        else:
            self.debootstrap(parent, root)
            self.image = Image(root)
        self.mount(root)
        self.stages[root.name] = self.image

    def debootstrap(self, image: str, root: Path) -> None:
        name, _, tag = image.partition(":")
        if name not in PROVIDED or "bookworm" not in tag:
            sys.exit(f"{image} is not replayed: BASE_IMAGE is a bookworm tag of {' or '.join(PROVIDED)}.")
        include = [f"--include={PROVIDED[name]}"] if PROVIDED[name] else []
        call("debootstrap", "--variant=minbase", *include, "bookworm", root, *filter(None, [self.mirror]))
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        for variable in CERTIFICATE_VARIABLES:
            if variable in self.carried:
                shutil.copy(self.carried[variable], root / "run/certificates.pem")
                self.carried[variable] = "/run/certificates.pem"

    def mount(self, root: Path) -> None:
        call("mount", "-t", "proc", "proc", root / "proc")
        call("mount", "-t", "sysfs", "-o", "ro", "sysfs", root / "sys")
        call("mount", "-t", "tmpfs", "tmpfs", root / "dev/shm")
        for folder in self.folders:
            target = root / folder.relative_to("/")
            target.mkdir(parents=True, exist_ok=True)
            call("mount", "--bind", "-o", "ro", folder, target)

    def unmount(self, root: Path) -> None:
        for folder in ("proc", "sys", "dev/shm", *(folder.relative_to("/") for folder in self.folders)):
            call("umount", root / folder)

    def do_env(self, value: str) -> None:
        for pair in shlex.split(self.image.expand(value)):
            name, _, content = pair.partition("=")
            self.image.environment[name] = content

    def do_run(self, value: str) -> None:
        self.execute(self.image, ["/bin/sh", "-c", value], self.image.arguments)

    def do_copy(self, value: str) -> None:
        *sources, destination = value.split()
        context = context_files(REPOSITORY)
        for source in sources:
            files = [file for file in context if Path(file).is_relative_to(source)]
            if not files:
                sys.exit(f"COPY {source}: the build context has no such file (see .dockerignore).")
            for file in files:
                name = Path(file).name if file == source else Path(file).relative_to(source)
                target = self.image.root / self.image.folder.lstrip("/") / destination / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / file, target)

    def do_workdir(self, value: str) -> None:
        self.image.folder = os.path.join(self.image.folder, self.image.expand(value))
        (self.image.root / self.image.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def do_user(self, value: str) -> None:
        if not re.fullmatch(r"\d+:\d+", value):
            sys.exit(f"USER {value} is not replayed: give numbers, user:group.")
        self.image.user = value

    def do_volume(self, value: str) -> None:
        if not (self.image.root / value.lstrip("/")).is_dir():
            sys.exit(f"VOLUME {value}: no such folder, so it would belong to root.")

    def do_expose(self, value: str) -> None:
        if not 1024 <= int(value) < 65536:
            sys.exit(f"EXPOSE {value}: an ordinary user cannot listen there.")

    def do_healthcheck(self, value: str) -> None:
        options, _, command = value.partition("CMD ")
        given = dict(option.removeprefix("--").split("=") for option in options.split())
        self.image.health_check = command_line(command)
        self.image.start_period = int(given["start-period"].removesuffix("s"))

    def do_stopsignal(self, value: str) -> None:
        self.image.stop_signal = value

    def do_entrypoint(self, value: str) -> None:
        self.image.entrypoint = command_line(value)

    def do_cmd(self, value: str) -> None:
        self.image.command = command_line(value)

    def execute(self, image: Image, command: list[str], extra: dict[str, str] | None = None) -> None:
        """Run a command in an image; end the replay where it fails."""
        if status := self.start(image, command, extra).wait():
            sys.exit(f"Exit status {status}: {shlex.join(command)}")

    def start(
        self, image: Image, command: list[str], extra: dict[str, str] | None = None, stderr: int | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a command in an image's chroot, in its folder and as its user."""
        user, group = (int(number) for number in image.user.split(":"))

        def enter() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored, if we were started in the background
            os.chroot(image.root)
            os.chdir(image.folder)
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)

        environment = {"HOME": home(image.root, user)} | self.carried | (extra or {}) | image.environment
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=stderr, preexec_fn=enter)


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction and its value, comments gone and continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        instruction, value = line.split(maxsplit=1)
        yield instruction.upper(), value.strip()


def command_line(value: str) -> list[str]:
    """Read a command in exec form or in shell form."""
    return json.loads(value) if value.startswith("[") else ["/bin/sh", "-c", value]


def context_files(repository: Path) -> list[str]:
    """List the files that `.dockerignore` lets into the build context; the last pattern that matches decides."""
    lines = (repository / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    rules = [(matcher(pattern.removeprefix("!")), pattern.startswith("!")) for pattern in patterns]

    def is_let_in(file: str) -> bool:
        return next((let_in for matches, let_in in reversed(rules) if matches.fullmatch(file)), True)

    if nested := [pattern for pattern in patterns if pattern.startswith("!") and "/" in pattern]:
        sys.exit(f"{nested[0]} is not replayed: below a folder that is left out, nothing is let in.")
    files = []
    for top, folders, names in os.walk(repository):
        place = Path(top).relative_to(repository)
        folders[:] = [folder for folder in folders if is_let_in((place / folder).as_posix())]
        files += [(place / name).as_posix() for name in names]
    return sorted(filter(is_let_in, files))


def matcher(pattern: str) -> re.Pattern[str]:
    """Translate a pattern of `.dockerignore`, which also matches what lies below a folder it names."""
    tokens = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    return re.compile("".join(tokens.get(part, re.escape(part)) for part in parts) + "(?:/.*)?")


def pip_settings() -> tuple[dict[str, str], list[Path]]:
    """Read how this machine reaches the package index.

    Returns:
        Environment variables that say the same to another pip, and the local folders they speak of.
    """
    listing = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True).splitlines()
    settings = {}
    for line in sorted(listing, key=lambda line: line.startswith(":env:")):  # the environment wins
        name, _, value = line.partition("=")
        settings["PIP_" + name.rpartition(".")[2].replace("-", "_").upper()] = ast.literal_eval(value)
    others = (*CERTIFICATE_VARIABLES, *PROXY_VARIABLES)
    settings |= {name: os.environ[name] for name in others if name in os.environ}

    folders = set()
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        for location in settings.get(name, "").split():
            if location.startswith(("file://", "/")):
                folder = Path(location.removeprefix("file://"))
                # the pages of an index point to files beside it
                folders.add(folder if name == "PIP_FIND_LINKS" else folder.parent)
    return settings, sorted(folders)


def home(root: Path, user: int) -> str:
    accounts = [line.split(":") for line in (root / "etc/passwd").read_text(encoding="utf-8").splitlines()]
    return next((fields[5] for fields in accounts if fields[2] == str(user)), "/")


def call(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def announce(line: str) -> None:
    print(f"\n=== {line}", flush=True)


if __name__ == "__main__":
    main()
