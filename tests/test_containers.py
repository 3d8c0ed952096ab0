"""What the Dockerfile's stages and the compose file promise, and the replay that tries them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from .replay_dockerfile import Replay, command_line, context_files, instructions

REPOSITORY = Path(__file__).resolve().parents[1]
STEPS = list(instructions((REPOSITORY / "Dockerfile").read_text(encoding="utf-8")))


@pytest.fixture
def replay(tmp_path, monkeypatch):
    """Return a replay that copies folders where it would install Debian, mounts nothing and runs nothing."""
    monkeypatch.setattr("tests.replay_dockerfile.pip_settings", lambda: ({}, []))
    replay = Replay(tmp_path, {"BASE_IMAGE": "debian:bookworm-slim"}, "")
    replay.commands = []
    monkeypatch.setattr(replay, "debootstrap", lambda image, root: (root / "cache").mkdir(parents=True))
    monkeypatch.setattr(replay, "mount", lambda root: (root / "proc").mkdir())
    monkeypatch.setattr(replay, "unmount", lambda root: (root / "proc").rmdir())
    monkeypatch.setattr(replay, "execute", lambda image, command, extra: replay.commands.append((command, extra)))
    return replay


def carry_out(replay, *steps):
    for step in steps:
        for instruction, value in instructions(step):
            getattr(replay, f"do_{instruction.lower()}")(value)


def built(replay):
    carry_out(replay, *(f"{instruction} {value}" for instruction, value in STEPS))
    return replay.stages


def test_the_images_run_as_an_ordinary_user_what_they_are_for(replay):
    stages = built(replay)
    assert list(stages) == ["base", "serve", "train"]  # `docker build` without --target takes the last
    assert stages["train"].entrypoint == ["accelerate", "launch", "train.py"]
    assert stages["serve"].entrypoint == ["python", "app.py"]
    assert stages["base"].entrypoint == []
    for name in ("serve", "train"):
        assert int(stages[name].user.partition(":")[0]) > 0


def test_the_serving_image_holds_the_page_and_none_of_the_package(replay):
    folder = built(replay)["serve"].root / "app"
    assert (folder / "app.py").read_bytes() == (REPOSITORY / "model_card/space/app.py").read_bytes()
    assert {path.name for path in folder.iterdir()} == {"app.py", "requirements.txt", "constraints.txt"}


def test_the_training_image_holds_what_it_held_as_the_only_one(replay):
    folder = built(replay)["train"].root / "app"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        *context_files(REPOSITORY)
    }


def test_the_port_served_is_the_one_exposed_checked_and_composed(replay):
    serve = built(replay)["serve"]
    port = serve.environment["GRADIO_SERVER_PORT"]
    assert dict(STEPS)["EXPOSE"] == port
    assert f"'127.0.0.1', {port}," in serve.health_check[-1]
    demo = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))["services"]["demo"]
    assert demo["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert demo["build"]["target"] == "serve"
    assert demo["volumes"][0].endswith(f":{serve.environment['MODEL_ID']}:ro")
    assert "app.py" in serve.entrypoint
    assert demo["environment"]["MODEL_ID"] == f"${{MODEL_ID:-{serve.environment['MODEL_ID']}}}"


def test_the_spaces_requirements_allow_what_the_constraints_pin():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE))
    lines = (REPOSITORY / "model_card/space/requirements.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines]
    assert {requirement.name for requirement in requirements} == {"gradio", "torch", "transformers"}
    assert all(requirement.specifier.contains(pins[requirement.name]) for requirement in requirements)


def test_the_space_names_the_gradio_that_is_pinned_and_the_file_that_is_there():
    text = (REPOSITORY / "model_card/space/README.md").read_text(encoding="utf-8")
    settings = yaml.safe_load(text.split("---")[1])
    assert f"gradio=={settings['sdk_version']}\n" in (REPOSITORY / "constraints.txt").read_text()
    assert (REPOSITORY / "model_card/space" / settings["app_file"]).is_file()
    assert len(settings["short_description"]) <= 60  # more, and the Hub refuses it


def test_a_stage_begins_as_the_one_it_builds_on_and_leaves_it_alone(replay, tmp_path):
    carry_out(replay, "ARG BASE_IMAGE=python:3.11", "FROM ${BASE_IMAGE} AS one", "ARG EXTRA=here", "ENV A=1 B=$EXTRA")
    carry_out(replay, "WORKDIR /app", "RUN first", "FROM one as two", "ENV A=2 C=$B", "WORKDIR below", "RUN second")
    one, two = replay.stages["one"], replay.stages["two"]
    assert (one.environment["A"], two.environment["A"], two.environment["C"]) == ("1", "2", "here")
    assert (one.folder, two.folder) == ("/app", "/app/below")
    assert (one.root / "app").is_dir()
    assert not (one.root / "app/below").exists()
    assert [(stage.root / "proc").is_dir() for stage in (one, two)] == [True, True]
    assert (two.root / "app/below").is_dir()
    # What stands before the first FROM is FROM's alone, and a stage has its parent's arguments.
    assert replay.commands == [(["/bin/sh", "-c", name], {"EXTRA": "here"}) for name in ("first", "second")]


def test_the_health_check_has_its_options_and_its_command(replay):
    carry_out(
        replay, "FROM x AS y", 'HEALTHCHECK --interval=3s --start-period=70s \\\n  CMD ["a", "b CMD c"]', "CMD d e"
    )
    assert (replay.image.health_check, replay.image.start_period) == (["a", "b CMD c"], 70)
    assert replay.image.command == ["/bin/sh", "-c", "d e"]


def test_commands_in_both_forms_are_read():
    assert command_line('["a b", "c"]') == ["a b", "c"]
    assert command_line("a b && c") == ["/bin/sh", "-c", "a b && c"]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("EXPOSE 80", "an ordinary user cannot listen"),
        ("USER trainer", "give numbers"),
        ("VOLUME /none", "no such folder"),
    ],
)
def test_what_would_not_hold_ends_the_replay(replay, step, said):
    carry_out(replay, "FROM x AS y")
    with pytest.raises(SystemExit, match=said):
        carry_out(replay, step)


def is_healthy(port):
    """Run the Dockerfile's health check, of another port."""
    _, option, script = command_line(dict(STEPS)["HEALTHCHECK"].partition("CMD ")[2])
    command = [sys.executable, option, script.replace("7860", str(port))]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize(("status", "passes"), [(200, True), (500, False)])
def test_the_health_check_passes_where_the_page_answers(status, passes):
    script = f"""
import http.server, os
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({status} if self.path == "/config" else 404)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 0), Page)
print(server.server_port, flush=True)
server.serve_forever()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        port = int(server.stdout.readline())
        assert is_healthy(port) == passes
        server.kill()
    assert not is_healthy(port)  # now that nothing is served
