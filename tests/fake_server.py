"""A server that answers as vLLM does, from the exact log-probabilities of a model in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from opd_lib.engine.sources import Model


@dataclass
class Fake:
    """What answers like `vllm serve`: an exact model, and the ways in which a real server can go wrong."""

    model: Model
    name: str = "org/teacher"
    root: str = "/models/teacher"
    max_model_len: int = 128
    max_logprobs: int = 20
    broken: int = 0  # so many connections are cut before one is answered
    away: int = 0  # so many requests are answered by a gateway
    spoil: Callable[[dict[str, Any]], Any] = lambda answer: answer
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def models(self) -> dict[str, Any]:
        return {"data": [{"id": self.name, "root": self.root, "max_model_len": self.max_model_len}]}

    def refusal(self, body: dict[str, Any]) -> str | None:
        """vLLM's own words."""
        longest, k = max(map(len, body["prompt"])), body["prompt_logprobs"]
        if body["model"] != self.name:
            return f"The model `{body['model']}` does not exist."
        if longest + 1 > self.max_model_len:
            return f"This model's maximum context length is {self.max_model_len} tokens. However, you requested more."
        if k > self.max_logprobs:
            return f"Requested prompt logprobs of {k}, which is greater than max allowed: {self.max_logprobs}"
        largest = max(map(max, body["prompt"]))
        return f"Token id {largest} is out of vocabulary" if largest >= self.model[0].config.vocab_size else None

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        rows, k = body["prompt"], body["prompt_logprobs"]
        choices = [{"index": i, "text": "", "prompt_logprobs": self.entries(row, k)} for i, row in enumerate(rows)]
        return {"choices": choices[::-1]}

    @torch.no_grad()
    def entries(self, row: list[int], k: int) -> list[dict[str, Any] | None]:
        logp_TV = self.model[0](torch.tensor([row])).logits[0, :-1].log_softmax(-1)
        found: list[dict[str, Any] | None] = [None]
        for token, logp_V in zip(row[1:], logp_TV, strict=True):
            ranks = {token: int((logp_V >= logp_V[token]).sum())}
            ranks |= {index: place + 1 for place, index in enumerate(logp_V.topk(k).indices.tolist())}
            words = {i: self.model[1].decode([i]) for i in ranks}
            found.append(
                {str(i): {"logprob": float(logp_V[i]), "rank": r, "decoded_token": words[i]} for i, r in ranks.items()}
            )
        return found


def handler(fake: Fake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v1/models"
            self.answer(fake.models())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert (self.path, body["max_tokens"]) == ("/v1/completions", 1)
            fake.requests.append(body)
            refused = fake.refusal(body)
            self.answer({"error": {"message": refused}}, 400) if refused else self.answer(fake.complete(body))

        def answer(self, content: dict[str, Any], status: int = 200) -> None:
            if fake.broken:
                fake.broken -= 1
                self.close_connection = True
                return
            if fake.away:
                fake.away, status = fake.away - 1, 503
            said = fake.spoil(content)
            data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *arguments: object) -> None:
        """A client that waits no longer is no error here."""


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    server = Quiet(("127.0.0.1", 0), handler(fake))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
