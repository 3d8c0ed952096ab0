"""Serve the page of model_card/space/ for a model, from this machine."""

import socket
from importlib.util import find_spec
from types import ModuleType

import torch

from ..errors import InputError, say
from ..files import carried_module
from ..training.loading import load_classifier

HOST, PORT = "127.0.0.1", 7860


def demo(name: str, host: str = HOST, port: int = PORT, open_browser: bool = True) -> None:
    """Serve a model's page until interrupted.

    The model is loaded by this package: no code from its folder runs.

    Args:
        name: a run's folder, a saved model's folder or a Hub id.
        host: the address to listen on; 0.0.0.0 lets other machines in.
        port: the port to listen on.
        open_browser: open the page in this machine's browser.

    Raises:
        InputError: if Gradio is not installed, the port not free, or the model not one that can be shown.
    """
    if find_spec("gradio") is None:
        raise InputError("The demo needs Gradio: pip install gradio.")
    check_port(host, port)
    model, tokenizer = load_classifier(name)
    if not hasattr(model, "running_logits"):
        raise InputError(f"{name} is a {model.config.model_type}: the page shows how a RoBERTa-GRU reads.", file=name)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    space = load_space()
    page = space.page(space.Classifier(model, tokenizer), space.examples(model.name_or_path))
    say(f"The page is at http://{f'[{host}]' if ':' in host else host}:{port}. Ctrl-C ends it.")
    space.serve(page, server_name=host, server_port=port, inbrowser=open_browser, quiet=True)


def check_port(host: str, port: int) -> None:
    """Check that a server can be started there.

    Raises:
        InputError: if not.
    """
    try:
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
                probe.bind(address)
    except OSError as error:
        raise InputError(
            f"Nothing can listen on {host}:{port} ({error.strerror}): give another --port.", field="port"
        ) from error


def load_space() -> ModuleType:
    """Import app.py."""
    return carried_module("model_card/space/app.py")
