"""Publish a model on the Hub: one commit that replaces the earlier version, and a tag.

The commit is made by `create_commit`, not by `upload_folder`: where hf_xet is installed, that one commits what it has
after five minutes, and the repository then holds half a version.
"""

import functools
import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import file_digest, sha1
from json import JSONDecodeError
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple, TypeVar

import yaml
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    get_token,
    hf_hub_url,
    is_offline_mode,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the HTTP client, whichever it is: it also stands for a connection that broke
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id

from ..arguments import all_options
from ..errors import InputError
from ..training.loading import model_folder
from ..trust import read_json
from .card import RUN_KEYS
from .check import ADAPTER_CONFIG, check_adapter, check_model

# What a published model is made of.
TRAVELS = (
    *("config.json", "generation_config.json"),
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("adapter_config.json", "adapter_model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "bpe.codes"),
    *("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model"),
    *("configuration_*.py", "modeling_*.py", "handler.py", "reading.py", "requirements.txt"),
    *("README.md", "LICENSE", "run.json", "metrics.json", "confusion.png", "curves.png"),
)
# What a repository may hold that holds no model yet.
PRELIMINARY = {".gitattributes", ".gitignore", "README.md", "LICENSE"}
FOREIGN_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx", ".gguf", ".tflite")

# Seconds between attempts; a Hub that asks for more is given more, up to a limit.
WAITS = (2, 4, 8, 16, 32)
LONGEST_WAIT = 600
# And all from 500 on. 409 and 412: somebody else was faster.
WORTH_RETRYING = (408, 409, 412, 425, 429)
# RuntimeError: what huggingface_hub puts around an upload's failure. OSError: hf_xet's, and the offline mode's.
HUB_ERRORS = (HTTPError, RuntimeError, OSError, ValueError)
LOG_IN = "Make a token that may write at https://huggingface.co/settings/tokens and give it to `hf auth login`"

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What publishing changes in a repository.

    Attributes:
        uploads: files that are new or have changed, with their sizes in bytes.
        unchanged: files that the repository holds already, likewise.
        deletions: files of an earlier version.
        left_out: what lies in the folder and does not travel.
        objection: what else the repository holds, in words; None where it holds an earlier version or nothing.
    """

    uploads: dict[str, int]
    unchanged: dict[str, int]
    deletions: list[str]
    left_out: list[str]
    objection: str | None

    @property
    def changes_nothing(self) -> bool:
        return not self.uploads and not self.deletions


@dataclass(frozen=True)
class Publication:
    """What was published, or would be.

    Attributes:
        repo_id: the repository.
        plan: what changes there.
        tag: the version's tag.
        oid, url: the commit and its page; None after a dry run.
        unasked: why the Hub could not be asked what it holds; None if it was.
    """

    repo_id: str
    plan: Plan
    tag: str
    oid: str | None = None
    url: str | None = None
    unasked: str | None = None


class Kind(NamedTuple):
    """What tells one model from another: `model_type`, architectures and labels; empty where they cannot be read."""

    model_type: str = ""
    architectures: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.model_type:
            return "a model whose configuration does not tell its type"
        labels = shorten(", ".join(self.labels), 60, placeholder=" …")
        said = f"; labels: {labels}" if labels else ""
        return f"a {self.model_type} model ({', '.join(self.architectures)}{said})"


@dataclass(frozen=True)
class Remote:
    """A repository as it was read at one commit.

    Attributes:
        head: the commit, which the next one is added to; None where there is no repository.
        branches, tags: name → commit.
        files: the commit's files.
        model: what kind of model it holds; None without a configuration.
        is_private: whether others cannot see it.
    """

    head: str | None
    branches: dict[str, str]
    tags: dict[str, str]
    files: dict[str, RepoSibling]
    model: Kind | None
    is_private: bool | None


NO_REPOSITORY = Remote(None, {}, {}, {}, None, None)


def publish(
    run: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    tag: str | None = None,
    dry_run: bool = False,
    confirm: Callable[[str], bool] = lambda question: False,
    token: str | None = None,
    endpoint: str | None = None,
) -> Publication:
    """Publish a model on the Hub in one commit, and tag it.

    Where it fails or is interrupted, the repository holds the earlier version or this one, whole, and the same call
    completes what is left. A repository that holds this version already gets no further commit, and no further tag if
    it has one.

    Args:
        run: a run's folder or a saved model's folder; nothing in it is changed.
        repo_id: USER/NAME.
        private: whether a new repository is private; None leaves it to the Hub. An old one must agree.
        revision: the branch, begun where `main` is if it is not there. None: `main`.
        tag: None: the next of `v1`, `v2`, …
        dry_run: only find out what would be done, which needs no right to write, and no Hub that answers.
        confirm: asked before a repository that holds something else is overwritten.
        token: None: the one that `hf auth login` keeps, or HF_TOKEN.
        endpoint: the Hub's address. None: HF_ENDPOINT, or the Hub itself.

    Raises:
        InputError: if the folder, the name, the rights or the Hub stand in the way.
    """
    api = _connect(repo_id, token, endpoint, is_dry_run=dry_run)
    branch = _checked_name("--revision", revision or "main")
    tag = None if tag is None else _checked_name("--tag", tag)
    if not Path(run).is_dir():
        raise InputError(f"{run} is not a folder: name a run's folder, or a saved model's.", file=str(run))
    folder = Path(model_folder(str(run)))
    if folder != Path(run):
        _check_no_link(folder)
    sizes = travelling_files(folder)
    if dry_run:
        return _rehearse(api, repo_id, branch, folder, sizes, tag, private)
    confirm = functools.cache(confirm)  # so that a second attempt does not ask again

    def attempt() -> Publication:
        remote = _read(api, repo_id, branch)
        if remote.head is None:
            api.create_repo(repo_id, private=private, exist_ok=True)
            remote = _read(api, repo_id, branch)
        _check_visibility(repo_id, remote.is_private, private)
        plan = _plan(folder, sizes, remote)
        version = _version(remote, branch, tag, plan)
        if plan.objection and not confirm(f"{repo_id} holds {plan.objection}. Overwrite it?"):
            raise InputError(
                f"Nothing was pushed: {repo_id} holds {plan.objection}. Choose another name, or pass --yes to "
                "overwrite it.",
                file=repo_id,
            )
        oid = _commit(api, repo_id, branch, folder, plan, remote, version)
        if version not in remote.tags:
            api.create_tag(repo_id, tag=version, revision=oid)
        return Publication(repo_id, plan, version, oid, f"{api.endpoint}/{repo_id}/commit/{oid}")

    check_rights(repo_id, token=token, private=private, endpoint=endpoint)
    return _retry(attempt, repo_id)


def _rehearse(
    api: HfApi,
    repo_id: str,
    branch: str,
    folder: Path,
    sizes: Mapping[str, int],
    tag: str | None,
    private: bool | None,
) -> Publication:
    """Plan what [`publish`] would do. The Hub is asked once; if it does not answer, the plan is that of a new name."""
    unasked = None
    try:
        remote = _read(api, repo_id, branch)
    except HUB_ERRORS as error:
        remote, unasked = NO_REPOSITORY, _reason(error)
    _check_visibility(repo_id, remote.is_private, private)
    plan = _plan(folder, sizes, remote)
    version = _version(remote, branch, tag, plan)
    return Publication(repo_id, plan, version if unasked is None else tag or "its next version", unasked=unasked)


def check_rights(
    repo_id: str, *, token: str | None = None, private: bool | None = None, endpoint: str | None = None
) -> None:
    """Find out, without writing anything, whether [`publish`] may publish under a name; it takes the same arguments.

    Raises:
        InputError: if nothing can have this name, there is no token, it has no right to write there, or what is there
            is not as private as wanted.
    """
    api = _connect(repo_id, token, endpoint)

    def attempt() -> None:
        account = api.whoami()
        user = account["name"]
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise InputError(f"The token of {user} may only read. {LOG_IN}.", field="token")
        accounts = [user, *(organization["name"] for organization in account.get("orgs", []))]
        owner, name = repo_id.split("/")
        if owner.lower() not in map(str.lower, accounts):
            raise InputError(
                f"The token of {user} cannot publish {repo_id}: it writes for {', '.join(accounts)}. Name it "
                f"{user}/{name}, or give {owner}'s token to `hf auth login`.",
                field="token",
                file=repo_id,
            )
        try:
            found = api.model_info(repo_id)
        except RepositoryNotFoundError:
            return
        _check_visibility(repo_id, found.private, private)
        api.auth_check(repo_id, write=True)

    _retry(attempt, repo_id)


def describe_publication(publication: Publication) -> str:
    """List what was published, or would be, and say where it is."""
    plan, name = publication.plan, f"{publication.repo_id}, {publication.tag}"
    sized = [("upload", plan.uploads), ("unchanged", plan.unchanged)]
    lines = [f"{what:<10} {size:>15,} bytes  {path}" for what, sizes in sized for path, size in sizes.items()]
    lines += [f"{'delete':<10} {'':>21}  {path}" for path in plan.deletions]
    lines += [f"{'stays here':<10} {'':>21}  {path}" for path in plan.left_out]
    if publication.url is not None:
        return "\n".join([*lines, f"Published as {name}: {publication.url}"])
    if plan.objection:
        lines.append(f"{publication.repo_id} holds {plan.objection}: publishing asks before it overwrites that.")
    if publication.unasked:
        lines.append(f"Could not ask the Hub what {publication.repo_id} holds ({publication.unasked}).")
    return "\n".join([*lines, f"A dry run of {name}: nothing was pushed."])


# What travels


def travelling_files(folder: Path) -> dict[str, int]:
    """Return what travels of a model's folder, with sizes in bytes.

    Raises:
        InputError: if the model is not whole, its card cannot be read or names no licence, a file leads elsewhere, or
            run.json holds what no run records.
    """
    paths = [path for path in sorted(folder.iterdir()) if belongs(path.name) and not path.is_dir()]
    for path in paths:
        _check_no_link(path)
    if (folder / ADAPTER_CONFIG).is_file():
        check_adapter(folder)
    else:
        check_model(folder)
    _check_card(folder / "README.md")
    _check_run(folder / "run.json")
    classes = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map", {}).values()
    code = {*(name.split(".")[0] + ".py" for name in classes), "handler.py", "reading.py"}
    return {path.name: path.stat().st_size for path in paths if path.suffix != ".py" or path.name in code}


def belongs(name: str) -> bool:
    """Tell whether a file's name is one of those that a published model is made of."""
    return any(fnmatch(name, pattern) for pattern in TRAVELS)


def _check_no_link(path: Path) -> None:
    if path.is_symlink():
        raise InputError(
            f"{path} is a symbolic link, and what it leads to would be published: put a copy there.", file=str(path)
        )
    if not (path.is_file() or path.is_dir()):  # a pipe, which is waited for
        raise InputError(f"{path} is neither a file nor a folder: take it out.", file=str(path))


def _check_card(path: Path) -> None:
    if not path.is_file():
        raise InputError(
            f"{path} is missing: a published model needs a card, which names its licence.", file=str(path)
        )
    try:
        data = ModelCard.load(path).data
    except (yaml.YAMLError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} is not a valid model card (see the block between its --- lines): {reason}", file=str(path)
        ) from error
    if not data.license:
        raise InputError(
            f"{path} names no licence: write `license: apache-2.0`, or yours, between its --- lines.",
            field="license",
            file=str(path),
        )


def _check_run(path: Path) -> None:
    """Check that the record of the run, if there is one, holds what runs record and nothing else."""
    if not path.is_file():
        return
    record = read_json(path)
    held = record if isinstance(record, dict) else {"a list": record}
    options = held.get("options", {})
    if not isinstance(options, dict):
        raise InputError(
            f"{path}: `options` is {options!r}, which no run records. Delete it, or put the run's own back.",
            field="options",
            file=str(path),
        )
    unknown = [*held.keys() - set(RUN_KEYS), *options.keys() - all_options().keys()]
    if unknown:
        raise InputError(
            f"{path} holds {min(unknown)!r}, which no run records. Take it out to publish the rest.",
            field=min(unknown),
            file=str(path),
        )


# Before anything is asked of the Hub


def _connect(repo_id: str, token: str | None, endpoint: str | None, is_dry_run: bool = False) -> HfApi:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"The Hub has no such names. {error}", file=repo_id) from error
    if "/" not in repo_id:
        raise InputError(f"{repo_id!r} names no account: write USER/{repo_id}.", file=repo_id)
    if is_offline_mode() and not is_dry_run:
        raise InputError("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it to publish.", field="HF_HUB_OFFLINE")
    if not (token or get_token() or is_dry_run):
        raise InputError(f"There is no token to publish with. {LOG_IN}, or set HF_TOKEN.", field="HF_TOKEN")
    return HfApi(endpoint, token=token)


def _checked_name(option: str, name: str) -> str:
    if not re.fullmatch(r"\w[\w./-]*", name, re.ASCII) or re.search(r"\.\.|//|/\.|[./]$|\.lock$", name):
        raise InputError(
            f"{option} {name!r} is not a name that git takes: use letters, digits, '-', '_' and '.'.",
            field=option.removeprefix("--"),
        )
    return name


def _check_visibility(repo_id: str, found: bool | None, wanted: bool | None) -> None:
    if None not in (found, wanted) and found != wanted:
        states = {True: "private", False: "public"}
        raise InputError(
            f"{repo_id} is {states[bool(found)]}, and publishing does not change that: make it "
            f"{states[bool(wanted)]} in its settings on the Hub, or choose another name.",
            file=repo_id,
        )


# What the repository holds


def _read(api: HfApi, repo_id: str, branch: str) -> Remote:
    try:
        refs = api.list_repo_refs(repo_id)
    except RepositoryNotFoundError:
        return NO_REPOSITORY
    branches = {ref.name: ref.target_commit for ref in refs.branches}
    head = branches.get(branch) or branches["main"]
    info = api.model_info(repo_id, revision=head, files_metadata=True)
    files = {file.rfilename: file for file in info.siblings or []}
    model = _kind_of(_download(api, repo_id, head, "config.json")) if "config.json" in files else None
    return Remote(head, branches, {ref.name: ref.target_commit for ref in refs.tags}, files, model, info.private)


def _download(api: HfApi, repo_id: str, oid: str, name: str) -> bytes:
    # Not by hf_hub_download, which keeps what it gets in a cache and takes it from there when the Hub is away.
    url = hf_hub_url(repo_id, name, revision=oid, endpoint=api.endpoint)
    response = get_session().get(url, headers=build_hf_headers(token=api.token))
    hf_raise_for_status(response)
    return response.content


def _kind_of(config: bytes) -> Kind:
    try:
        fields = json.loads(config)
        labels = tuple(map(str, fields.get("id2label", {}).values()))
        return Kind(str(fields["model_type"]), tuple(map(str, fields["architectures"])), labels)
    except (ValueError, TypeError, KeyError, AttributeError):
        return Kind()


def _is_same(path: Path, remote: RepoSibling) -> bool:
    """Compare a file's content with the remote one's, which is known by SHA-256 if large, or else by git's SHA-1."""
    if remote.lfs is None:
        content = path.read_bytes()
        return sha1(b"blob %d\0%b" % (len(content), content)).hexdigest() == remote.blob_id
    if path.stat().st_size != remote.lfs.size:
        return False
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest() == remote.lfs.sha256


# What changes


def _plan(folder: Path, sizes: Mapping[str, int], remote: Remote) -> Plan:
    same = {name for name in sizes if name in remote.files and _is_same(folder / name, remote.files[name])}
    return Plan(
        uploads={name: size for name, size in sizes.items() if name not in same},
        unchanged={name: size for name, size in sizes.items() if name in same},
        deletions=sorted(name for name in remote.files if belongs(name) and name not in sizes),
        left_out=sorted(path.name for path in folder.iterdir() if path.name not in sizes),
        objection=_objection(_kind_of((folder / "config.json").read_bytes()), remote),
    )


def _objection(model: Kind, remote: Remote) -> str | None:
    others = sorted(remote.files.keys() - PRELIMINARY)
    if remote.model is None:
        return f"files and no config.json ({', '.join(others[:3])})" if others else None
    if remote.model != model:
        is_told_alike = str(remote.model) == str(model)  # where labels are too long to be told whole
        return f"{remote.model}, and this is {'one with other labels' if is_told_alike else model}"
    weights = [name for name in others if name.endswith(FOREIGN_WEIGHTS)]
    return f"weights of another format, which would stay ({', '.join(weights[:3])})" if weights else None


def _version(remote: Remote, branch: str, tag: str | None, plan: Plan) -> str:
    """Name the version: as wanted, or as it is tagged already, or by the next number."""
    if branch in remote.tags and branch not in remote.branches:
        raise InputError(f"--revision {branch} is a tag, which stays where it is: name a branch.", field="revision")
    head = remote.head if plan.changes_nothing else None
    if tag is not None:
        if tag in remote.branches or remote.tags.get(tag, head) != head:
            raise InputError(f"--tag {tag} is taken, by a branch or another version: choose another.", field="tag")
        return tag
    tagged = [name for name, oid in remote.tags.items() if oid == head]
    numbers = [int(name[1:]) for name in remote.tags if re.fullmatch(r"v[0-9]+", name)]
    return tagged[0] if tagged else f"v{max(numbers, default=0) + 1}"


# One commit


def _commit(
    api: HfApi, repo_id: str, branch: str, folder: Path, plan: Plan, remote: Remote, version: str
) -> str | None:
    """Bring the branch to hold this version, by one commit if it takes any, and return the commit that holds it."""
    if branch not in remote.branches:
        api.create_branch(repo_id, branch=branch, revision=remote.head, exist_ok=True)
    if plan.changes_nothing:
        return remote.head
    additions = [CommitOperationAdd(name, folder / name) for name in plan.uploads]
    deletions = [CommitOperationDelete(name, is_folder=False) for name in plan.deletions]
    # With a list of its own that ignores nothing: the Hub would silently leave out what the repository's names.
    api.preupload_lfs_files(repo_id, additions, revision=branch, gitignore_content="# nothing")
    return api.create_commit(
        repo_id,
        [*additions, *deletions],
        commit_message=f"Publish {version}",
        revision=branch,
        parent_commit=remote.head,
    ).oid


# Retries


def _retry(attempt: Callable[[], T], repo_id: str) -> T:
    """Return what an attempt returns, making another one where the failure is of a kind that passes.

    Raises:
        InputError: if it is of no such kind, or the last attempt fails.
    """
    for attempts, wait in enumerate((*WAITS, None), start=1):
        try:
            return attempt()
        except InputError:
            raise
        except HUB_ERRORS as error:
            response, reason = _response(error), _reason(error)
            if isinstance(error, PermissionError | FileNotFoundError) and error.filename is not None:
                name = str(error.filename)
                raise InputError(f"{name} cannot be read: {error.strerror}.", file=name) from error
            if not _may_pass(error):
                raise _refusal(response, repo_id, reason) from error
            asked = _asked_wait(response)
            if wait is None or asked > LONGEST_WAIT:
                later = f" in {asked:,} s" if asked else ""
                raise InputError(
                    f"Could not reach the Hub ({attempts} attempts): {reason}. {repo_id} holds its earlier version or "
                    f"this one, whole; the same command{later} completes it.",
                    file=repo_id,
                ) from error
            seconds = max(wait, asked)
            logger.warning("%s: %s. Retry in %d s (%d of %d).", repo_id, reason, seconds, attempts, len(WAITS))
            time.sleep(seconds)
    raise AssertionError("the last attempt returns or raises")


def _response(error: BaseException | None) -> Any:
    """Return the Hub's answer that an error tells of; None where there was none."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error.response if error is not None else None


def _may_pass(error: Exception) -> bool:
    response = _response(error)
    if isinstance(error, RuntimeError):  # an upload's address is good for a while: another attempt gets another one
        return True
    if response is None:  # a page of a gateway's instead of an answer is not JSON
        return isinstance(error, JSONDecodeError) or not isinstance(error, ValueError)
    return response.status_code in WORTH_RETRYING or response.status_code >= 500


def _asked_wait(response: Any) -> int:
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    return int(asked) if asked.isdecimal() else 0


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None and not isinstance(error, HTTPError):
        error = error.__cause__
    response = _response(error)
    said = getattr(error, "server_message", None) or str(error).partition(" for url")[0]
    said = " ".join(said.split())[:200].rstrip(".")
    status = f"HTTP {response.status_code}: " if response is not None else ""
    return f"{status}{said or type(error).__name__}"


def _refusal(response: Any, repo_id: str, reason: str) -> InputError:
    status = response.status_code if response is not None else None
    if status == 401:
        return InputError(f"The Hub does not accept the token ({reason}). {LOG_IN}.", field="token")
    if status == 403:
        said = f"The token has no right to write to {repo_id} ({reason}). {LOG_IN}."
        return InputError(said, field="token", file=repo_id)
    if status == 404:
        said = f"{repo_id} is not there, or not for this token ({reason}). Check the name. {LOG_IN}."
        return InputError(said, file=repo_id)
    return InputError(f"The Hub refuses {repo_id}: {reason}.", file=repo_id)
