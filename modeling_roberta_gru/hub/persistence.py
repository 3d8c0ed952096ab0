"""Talk to the Hub until it answers, as long as that may help; what does not is said in one line."""

import logging
import time
from collections.abc import Callable
from json import JSONDecodeError
from typing import Any, TypeVar

from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,  # of the HTTP client, whichever it is: it also stands for a connection that broke
)

from ..errors import InputError

# Seconds between attempts; a Hub that asks for more is given more, up to a limit.
WAITS = (2, 4, 8, 16, 32)
LONGEST_WAIT = 600
# And all from 500 on. 409 and 412: somebody else was faster.
WORTH_RETRYING = (408, 409, 412, 425, 429)
LOG_IN = "Make a token that may write at https://huggingface.co/settings/tokens and give it to `hf auth login`"

logger = logging.getLogger(__name__)

T = TypeVar("T")


def persist(attempt: Callable[[], T], repo_id: str) -> T:
    """Return what an attempt returns, making another one where the failure is of a kind that passes.

    Raises:
        InputError: if it is of no such kind, or the last attempt fails.
    """
    for attempts, wait in enumerate((*WAITS, None), start=1):
        try:
            return attempt()
        except InputError:
            raise
        # RuntimeError: what huggingface_hub puts around an upload's failure. OSError: hf_xet's.
        except (HTTPError, RuntimeError, OSError, ValueError) as error:
            response, reason = _response(error), _reason(error)
            if not _may_pass(error):
                raise InputError(_refusal(response, repo_id, reason)) from error
            asked = _asked_wait(response)
            if wait is None or asked > LONGEST_WAIT:
                later = f" in {asked:,} s" if asked else ""
                raise InputError(
                    f"The Hub could not be moved ({attempts} attempts): {reason}. {repo_id} holds its earlier version "
                    f"or this one, whole; the same command{later} completes it."
                ) from error
            seconds = max(wait, asked)
            logger.warning("%s: %s. Trying again in %d s (%d of %d).", repo_id, reason, seconds, attempts, len(WAITS))
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
    if response is None:  # a page of a gateway's in the place of an answer is no JSON
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


def _refusal(response: Any, repo_id: str, reason: str) -> str:
    status = response.status_code if response is not None else None
    if status == 401:
        return f"The Hub does not accept the token ({reason}). {LOG_IN}."
    if status == 403:
        return f"The token has no right to write to {repo_id} ({reason}). {LOG_IN}."
    if status == 404:
        return f"{repo_id} is not there, or not for this token ({reason}). Check the name. {LOG_IN}."
    return f"The Hub refuses {repo_id}: {reason}."
