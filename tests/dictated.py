"""A model server whose answers come piece by piece, each piece when a test says so."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue

__all__ = ["BUSY", "CUT", "END", "Dictated"]

#: What ends an answer: as it should be, by a broken connection, or before it has begun.
END, CUT, BUSY = object(), object(), object()


class Dictated(ThreadingHTTPServer):
    """An Ollama that says of each question what it is told to, piece by piece, in each call anew.

    ``calls`` has the questions in the order of their calls, ``left`` those whose caller hung up.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.words: defaultdict[str, SimpleQueue[object]] = defaultdict(SimpleQueue)
        self.calls: list[str] = []
        self.left: list[str] = []
        self.thread = threading.Thread(target=self.serve_forever, name="dictated", daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def say(self, question: str, *words: object) -> None:
        """Go on with an answer."""
        for word in words:
            self.words[question].put(word)

    def stop(self) -> None:
        """Break off what is not over, and close the port."""
        for question in list(self.words):
            self.say(question, CUT)
        self.shutdown()
        self.server_close()
        self.thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Dictated

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_POST(self) -> None:
        """One call."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["stream"] is True
        question = asked["messages"][-1]["content"]
        self.server.calls.append(question)
        try:
            self.answer(self.server.words[question])
        except ConnectionError:
            self.server.left.append(question)
            self.close_connection = True

    def answer(self, words: SimpleQueue[object]) -> None:
        """Send each word, until the last."""
        word = words.get()
        if word is BUSY:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while word is not CUT:
            message = {"role": "assistant", "content": "" if word is END else word}
            line = {"model": "echo", "message": message, "done": word is END}
            if word is END:
                line |= {"done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}
            text = json.dumps(line).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            if word is END:
                self.wfile.write(b"0\r\n\r\n")
                return
            word = words.get()
        self.close_connection = True
