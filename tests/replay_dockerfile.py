"""Replay the Dockerfile without Docker, in a bare Debian that has nothing but what FROM provides.

Each instruction runs as Docker would run it: RUN in a chroot, COPY from the context that `.dockerignore` leaves, then
the ENTRYPOINT as the image's user, with `--help` and for two training steps. A missing step shows, because nothing of
this machine is in the chroot but its way to the package index: pip's settings, its local folders, the certificates.

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
from pathlib import Path
from string import Template

REPOSITORY = Path(__file__).resolve().parents[1]
ENTRY_ARGUMENTS = (["--help"], ["--config", "recipes/quickstart.yaml", "--max_steps", "2"])

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


class Replay:
    """Carry out a Dockerfile in `root`; the attributes are the image's, as they stand after the latest step."""

    def __init__(self, root: Path, build_arguments: dict[str, str], mirror: str) -> None:
        self.root = root
        self.mirror = mirror
        self.carried, self.folders = pip_settings()
        self.build_arguments = self.carried | build_arguments
        self.arguments: dict[str, str] = {}
        self.environment = {"PATH": IMAGE_PATH}
        self.folder = "/"
        self.user = "0:0"
        self.entrypoint: list[str] = []

    def run(self) -> None:
        """Carry out every instruction, then start the entry as the user of the image would."""
        for instruction, value in instructions((REPOSITORY / "Dockerfile").read_text(encoding="utf-8")):
            step: Callable[[str], None] | None = getattr(self, f"do_{instruction.lower()}", None)
            if step is None:
                sys.exit(f"{instruction} is not replayed yet: teach tests/replay_dockerfile.py to.")
            announce(f"{instruction} {value}")
            start = time.monotonic()
            step(value)
            print(f"    {time.monotonic() - start:.1f} s", flush=True)
        if self.user.startswith("0:"):
            sys.exit("The image runs as root: USER is missing.")
        for entry_arguments in ENTRY_ARGUMENTS:
            announce(shlex.join([*self.entrypoint, *entry_arguments]))
            self.execute([*self.entrypoint, *entry_arguments])
        announce("The Dockerfile holds.")

    def do_arg(self, value: str) -> None:
        name, _, default = value.partition("=")
        self.arguments[name] = self.build_arguments.get(name, default)

    def do_from(self, value: str) -> None:
        image = self.expand(value)
        name, _, tag = image.partition(":")
        if name not in PROVIDED or "bookworm" not in tag:
            sys.exit(f"{image} is not replayed: BASE_IMAGE is a bookworm tag of {' or '.join(PROVIDED)}.")
        include = [f"--include={PROVIDED[name]}"] if PROVIDED[name] else []
        call("debootstrap", "--variant=minbase", *include, "bookworm", self.root, *filter(None, [self.mirror]))
        call("mount", "-t", "proc", "proc", self.root / "proc")
        call("mount", "-t", "sysfs", "-o", "ro", "sysfs", self.root / "sys")
        call("mount", "-t", "tmpfs", "tmpfs", self.root / "dev/shm")
        shutil.copy("/etc/resolv.conf", self.root / "etc/resolv.conf")
        for folder in self.folders:
            target = self.root / folder.relative_to("/")
            target.mkdir(parents=True)
            call("mount", "--bind", "-o", "ro", folder, target)
        for variable in CERTIFICATE_VARIABLES:
            if variable in self.carried:
                shutil.copy(self.carried[variable], self.root / "run/certificates.pem")
                self.carried[variable] = "/run/certificates.pem"
        self.arguments.clear()  # as in Docker: what stood before FROM is FROM's alone

    def do_env(self, value: str) -> None:
        for pair in shlex.split(self.expand(value)):
            name, _, content = pair.partition("=")
            self.environment[name] = content

    def do_run(self, value: str) -> None:
        self.execute(["/bin/sh", "-c", value], self.arguments)

    def do_copy(self, value: str) -> None:
        *sources, destination = value.split()
        context = context_files(REPOSITORY)
        for source in sources:
            files = [file for file in context if Path(file).is_relative_to(source)]
            if not files:
                sys.exit(f"COPY {source}: the build context has no such file (see .dockerignore).")
            for file in files:
                name = Path(file).name if file == source else Path(file).relative_to(source)
                target = self.root / self.folder.lstrip("/") / destination / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / file, target)

    def do_workdir(self, value: str) -> None:
        self.folder = os.path.join(self.folder, self.expand(value))
        (self.root / self.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def do_user(self, value: str) -> None:
        if not re.fullmatch(r"\d+:\d+", value):
            sys.exit(f"USER {value} is not replayed: give numbers, user:group.")
        self.user = value

    def do_volume(self, value: str) -> None:
        if not (self.root / value.lstrip("/")).is_dir():
            sys.exit(f"VOLUME {value}: no such folder, so it would belong to root.")

    def do_entrypoint(self, value: str) -> None:
        self.entrypoint = json.loads(value)

    def expand(self, value: str) -> str:
        return Template(value).substitute(self.arguments | self.environment)

    def execute(self, command: list[str], extra: dict[str, str] | None = None) -> None:
        """Run a command in the chroot, in the image's folder and as its user; end the replay where it fails."""
        user, group = (int(number) for number in self.user.split(":"))

        def enter() -> None:
            os.chroot(self.root)
            os.chdir(self.folder)
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)

        environment = {"HOME": home(self.root, user)} | self.carried | (extra or {}) | self.environment
        status = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, preexec_fn=enter).returncode
        if status:
            sys.exit(f"Exit status {status}: {shlex.join(command)}")


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction and its value, comments gone and continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        instruction, value = line.split(maxsplit=1)
        yield instruction.upper(), value.strip()


def context_files(repository: Path) -> list[str]:
    """List the files that `.dockerignore` lets into the build context; the last pattern that matches decides."""
    lines = (repository / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    rules = [(matcher(pattern.removeprefix("!")), pattern.startswith("!")) for pattern in patterns]

    def is_let_in(file: str) -> bool:
        return next((let_in for matches, let_in in reversed(rules) if matches.fullmatch(file)), True)

    files = (path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file())
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
