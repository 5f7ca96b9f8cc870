"""A vLLM server over HTTP: requests in JSON, tried again while nobody answers, and what its refusals call for."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any, NoReturn

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before an unreachable server is tried again
PATIENCE = 600.0  # seconds without a word from the server
AWAY = (502, 503, 504)  # what a gateway says in the place of a server that is starting or gone
LONGER = "start the server with a larger --max-model-len, or use a smaller source.max_new_tokens"
REMEDIES = (
    ("logprobs", "start the server with --max-logprobs {k} at least, or use a smaller method.k and diagnose.ks"),
    ("context length", LONGER),
    ("max_tokens must be", LONGER),  # the one token that vLLM insists on sampling has no room
    ("out of vocabulary", "the server's model has fewer tokens than the teacher: serve the teacher's checkpoint"),
)
"""What a refusal of vLLM speaks of → what to do about it."""
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # straight to the server, past any proxy


def request(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON answer to a GET, or to a POST of `body`; tried again while the server cannot be reached.

    Raises ValueError with the remedy if that does not help, or if the server refuses.
    """
    data = None if body is None else json.dumps(body).encode()
    for wait in (*WAITS, None):
        try:
            call = urllib.request.Request(url, data, {"Content-Type": "application/json"})
            with OPENER.open(call, timeout=PATIENCE) as answer:
                found = json.load(answer)
            if not isinstance(found, dict):
                raise ValueError("no JSON object")
            return found
        except urllib.error.HTTPError as error:
            if error.code not in AWAY or wait is None:
                refuse(url, error.code, error.read().decode(errors="replace"), body or {})
            time.sleep(wait)
        except (OSError, http.client.HTTPException) as error:
            late = isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)
            if wait is None or late:
                raise ValueError(
                    f"machine.teacher_url: {url} cannot be reached ({error or type(error).__name__}); start the server "
                    "(`vllm serve CHECKPOINT`) and run again: it goes on from the last checkpoint. teacher_url: null "
                    "keeps the teacher in this process"
                ) from error
            time.sleep(wait)
        except ValueError as error:
            raise ValueError(f"machine.teacher_url: {url} does not answer in JSON; is that a vLLM server?") from error
    raise AssertionError  # the last try returns or raises


def refuse(url: str, status: int, text: str, body: dict[str, Any]) -> NoReturn:
    """Raise ValueError with what the server said and what to do about it."""
    try:
        answer = json.loads(text)
        message = str(answer.get("error", answer).get("message", text))
    except (ValueError, AttributeError):
        message = text
    remedies = [remedy for word, remedy in REMEDIES if word in message]
    remedy = remedies[0].format(k=body.get("prompt_logprobs")) if remedies else "see the server's log"
    raise ValueError(f"machine.teacher_url: {url} refuses ({status}: {' '.join(message.split())[:300]}); {remedy}")
