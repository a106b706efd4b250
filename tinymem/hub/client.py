"""The one way to call the Hub: waits and tries again where that helps, and one line of whatever goes wrong, without the token.

The token is the client's own (`hf auth login`, or HF_TOKEN): it is never an argument, and never in a message.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import gaierror
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from tinymem.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

P = ParamSpec("P")
R = TypeVar("R")
TRIES = 6
LONGEST_WAIT = 300.0
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that pass: too many calls, and the server's own troubles."""
CUT = ("ConnectError", "ReadError", "WriteError", "RemoteProtocolError", "CloseError", "TimeoutException", "ConnectTimeout", "ReadTimeout",
       "WriteTimeout", "PoolTimeout", "ConnectionError", "ProtocolError")  # fmt: skip
"""Names of the errors of connections, in whichever HTTP library the client's version uses."""
SECRET = re.compile(r"\b(?:hf|api_org|oauth)_[A-Za-z0-9_.-]{6,}")


def hub_api() -> HfApi:
    """The client, logged in as its own login says."""
    from huggingface_hub import HfApi

    return HfApi(library_name="tinymem")


def persistent(call: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
    """The result of a call; after a cut connection or a status that passes it is made again, up to six times in all.

    Between two tries it waits as long as the Hub asks for, up to five minutes, else 1, 2, 4, ... seconds.
    """
    for tried in range(TRIES):
        try:
            return call(*arguments, **options)
        except Exception as error:
            if tried == TRIES - 1 or (wait := _wait(error, 2.0**tried)) is None:
                raise
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _wait(error: BaseException, default: float) -> float | None:
    """Seconds to wait before the next try; None where another try would not help: of a host whose name is not found there is one more."""
    status, headers = _response(error)
    if status is None and (_is_offline(error) or (default > 1 and any(isinstance(found, gaierror) for found in _chain(error)))):
        return None
    if status is None:
        return default if any(kind in CUT for found in _chain(error) for kind in (t.__name__ for t in type(found).__mro__)) else None
    if status not in PASSING:
        return None
    asked = re.search(r"\bt=(\d+)", headers.get("ratelimit", "")) or re.fullmatch(r"(\d+)", headers.get("retry-after", ""))
    return min(float(asked[1]), LONGEST_WAIT) if asked else default


def _is_offline(error: BaseException) -> bool:
    """Whether the client was told to be offline, or found no network and nothing in its cache."""
    return any("Offline" in type(found).__name__ or "LocalEntryNotFound" in type(found).__name__ for found in _chain(error))


def status_of(error: BaseException) -> int | None:
    """HTTP status behind an error of the client; None where no response came."""
    return _response(error)[0]


def _response(error: BaseException) -> tuple[int | None, dict[str, str]]:
    for found in _chain(error):
        response: Any = getattr(found, "response", None)
        if response is not None:
            return response.status_code, {str(name).lower(): str(value) for name, value in response.headers.items()}
    return None, {}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def hub_errors(doing: str, hint: str = "") -> Iterator[None]:
    """Let the client work quietly, and make one line of whatever it raises.

    Args:
        doing: what is being done, as in `could not <doing>`.
        hint: what to try.

    Raises:
        UserError: the client, the network or the Hub failed.
    """
    from huggingface_hub.utils import logging as found
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logs: Any = found
    level, hidden = logs.get_verbosity(), are_progress_bars_disabled()
    logs.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the network and the library raise many kinds
        raise UserError(f"could not {doing}: {_reason(error)}" + (f"; {hint}" if hint else "")) from None
    finally:
        logs.set_verbosity(level)
        if not hidden:
            enable_progress_bars()


def _reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    status = status_of(error)
    name, code = type(error).__name__, _response(error)[1].get("x-error-code", "")
    if status == 401 or (status == 404 and "RevisionNotFound" not in (name, code) and not name.startswith("Revision")):
        return f"there is no such repository, or your login may not see it ({status}); check the name, or `hf auth login`"
    if status == 404:
        return "there is no such revision (404); check the branch, tag or commit"
    if status == 403:
        return "your login has no right to it (403); `hf auth login` with a token that has, or name another organization"
    if status == 429:
        return "too many calls (429); wait and run again: what is done stays"
    if status is not None and status >= 500:
        return f"the Hub has trouble of its own ({status}); run again later: what is done stays"
    if _is_offline(error):
        return "the client is offline, and its cache has none of it"
    root = [*_chain(error)][-1]
    texts = (str(error), f"({status})" if status is not None else str(root) if root is not error else "")
    return " ".join(without_secrets(" ".join(text.split()))[:200] for text in dict.fromkeys(texts) if text) or name


def without_secrets(text: str) -> str:
    """The text without anything that looks like a token, and without the token of the login."""
    from huggingface_hub import get_token

    token = get_token()
    return SECRET.sub("***", text.replace(token, "***") if token else text)
