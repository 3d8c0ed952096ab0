"""What the Dockerfile's stages and the compose file promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from .dockerfile import command_line, context_files, environment, read_stages

REPOSITORY = Path(__file__).resolve().parents[1]
STAGES = read_stages((REPOSITORY / "Dockerfile").read_text(encoding="utf-8"))
SERVE, TRAIN = STAGES["serve"], STAGES["train"]


def test_the_images_run_as_an_ordinary_user_what_they_are_for():
    assert list(STAGES) == ["base", "serve", "train"]  # `docker build` without --target takes the last
    assert command_line(TRAIN["ENTRYPOINT"][-1]) == ["accelerate", "launch", "train.py"]
    assert command_line(SERVE["ENTRYPOINT"][-1]) == ["python", "app.py"]
    for stage in (SERVE, TRAIN):
        user, group = stage["USER"][-1].split(":")
        assert int(user) > 0
        assert int(group) > 0


def test_every_file_that_is_copied_is_in_the_build_context():
    context = context_files(REPOSITORY)
    for stage in STAGES.values():
        for sources in (value.split()[:-1] for value in stage["COPY"]):
            assert all(any(Path(file).is_relative_to(source) for file in context) for source in sources)


def test_the_serving_image_holds_the_page_and_of_the_package_what_it_needs():
    sources = {source for value in SERVE["COPY"] for source in value.split()[:-1]}
    page = {
        "model_card/space/app.py",
        "model_card/space/requirements.txt",
        "constraints.txt",
        "requirements/serve.txt",
    }
    package = {"inference/reading.py", "inference/reading.html", "data/dialect.py"}
    assert sources == page | {f"modeling_roberta_gru/{name}" for name in package}


def test_the_port_served_is_the_one_exposed_checked_and_composed():
    variables = environment(SERVE)
    port = variables["GRADIO_SERVER_PORT"]
    assert 1024 <= int(port) < 65536  # an ordinary user cannot listen below
    assert SERVE["EXPOSE"] == [port]
    assert f"'127.0.0.1', {port}," in SERVE["HEALTHCHECK"][-1]
    demo = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))["services"]["demo"]
    assert demo["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert demo["build"]["target"] == "serve"
    assert demo["volumes"][0].endswith(f":{variables['MODEL_ID']}:ro")
    assert demo["environment"]["MODEL_ID"] == f"${{MODEL_ID:-{variables['MODEL_ID']}}}"


def test_the_spaces_requirements_allow_what_the_constraints_pin():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE))
    lines = (REPOSITORY / "model_card/space/requirements.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines]
    assert {"gradio", "torch", "transformers"} <= {requirement.name for requirement in requirements}
    assert all(requirement.specifier.contains(pins[requirement.name]) for requirement in requirements)


def test_the_space_names_the_gradio_that_is_pinned_and_the_file_that_is_there():
    text = (REPOSITORY / "model_card/space/README.md").read_text(encoding="utf-8")
    settings = yaml.safe_load(text.split("---")[1])
    assert f"gradio=={settings['sdk_version']}\n" in (REPOSITORY / "constraints.txt").read_text()
    assert (REPOSITORY / "model_card/space" / settings["app_file"]).is_file()
    assert len(settings["short_description"]) <= 60  # more, and the Hub refuses it


def is_healthy(port):
    """Run the Dockerfile's health check, of another port."""
    _, option, script = command_line(SERVE["HEALTHCHECK"][-1].partition("CMD ")[2])
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
