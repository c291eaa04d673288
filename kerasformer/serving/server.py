"""`kerasformer serve`: the models of a folder behind TF Serving's REST API, over HTTP."""

import asyncio
import atexit
import contextlib
import json
import math
import shlex
import signal
import socket
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from kerasformer.errors import InputError
from kerasformer.files import path_of
from kerasformer.serving.rest import RestApi, error_body
from kerasformer.serving.servables import Servable, Servables
from kerasformer.serving.session import DEFAULT_SIGNATURE
from kerasformer.serving.versions import find_models
from kerasformer.serving.watcher import Watcher, callable_signatures

BODY_LIMIT = 32 * 2**20  # bytes, once decompressed
GRACE_SECONDS = 40  # for the requests under way at a stop; a run times out before
BACKLOG = 2048  # connections that wait to be accepted
REQUEST_THREADS = 40


class Server:
    """A server of the models of a folder, in threads of its own; see `serve`.

    Args:
        folder, host, rest_port, file_system_poll_wait_seconds: as of `serve`.
        xla: leave XLA on in this process, for what else runs in it.

    Raises:
        InputError: a port that cannot be had.
    """

    def __init__(
        self, folder: Path, host: str, rest_port: int, file_system_poll_wait_seconds: float, *, xla: bool = False
    ):
        self._socket = _bind(host, rest_port)
        port = self._socket.getsockname()[1]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._folder, self._poll_seconds = folder, file_system_poll_wait_seconds
        self._servables = Servables(xla=xla)
        self._watcher = Watcher(folder, self._servables, _print)
        self._pool = ThreadPoolExecutor(REQUEST_THREADS, "kerasformer-request")
        config = uvicorn.Config(
            _asgi_app(RestApi(self._servables), self._pool),
            lifespan="off",
            ws="none",
            log_config=None,  # uvicorn's own would close the log handlers of the whole process
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        self._http = uvicorn.Server(config)
        # An event, as a Thread of Python 3.11 counts as ended once a signal has interrupted its `join`.
        self._ended = Event()
        self._ended.set()  # not begun

    def __repr__(self) -> str:
        return f"<kerasformer server at {self.url}{', stopped' if self._ended.is_set() else ''}>"

    def start(self) -> None:
        """Load the models, then answer requests.

        Raises:
            InputError: no model that loads.
        """
        self._watcher.poll()
        available = ((name, self._servables.in_service(name)) for name in self._servables.names())
        loaded = {name: versions[max(versions)] for name, versions in available if versions}
        if not loaded:
            raise InputError(f"expected a model that loads, found none in {self._folder}: mend one of those above")
        self._socket.listen(BACKLOG)
        self._ended.clear()
        # No thread that the interpreter waits for at its end, where `stop` is called.
        Thread(target=self._answer, name="kerasformer-http", daemon=True).start()
        atexit.register(self.stop)
        self._watcher.start(self._poll_seconds)
        _print(f"Serving at {self.url}; try:\n{_curl(self.url, *next(iter(loaded.items())))}")

    def _answer(self) -> None:
        try:
            self._http.run([self._socket])
        finally:
            self._ended.set()

    def wait(self) -> None:
        """Returns when it has been stopped."""
        self._ended.wait()

    def stop(self) -> None:
        """Finish the requests under way, then free the models and the port; a KeyboardInterrupt cuts the wait short."""
        atexit.unregister(self.stop)
        if not self._ended.is_set():
            self._http.handle_exit(signal.SIGTERM, None)
            try:
                self._ended.wait()
            except KeyboardInterrupt:
                self._http.handle_exit(signal.SIGINT, None)  # the second: at once
                self._ended.wait()
        self._socket.close()
        self._pool.shutdown(wait=False)
        self._watcher.stop(GRACE_SECONDS)
        self._servables.close()


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    rest_port: int = 8501,
    file_system_poll_wait_seconds: float = 1.0,
    block: bool | None = None,
) -> Server:
    """Serve the newest version of each model of a folder, and those that are added while it runs.

    In a program it blocks: in the main thread until SIGINT or SIGTERM, after which the requests under way are finished,
    the handlers of signals are what they were, and it returns; in another thread, where signals do not come, to the end
    of the process. In a notebook, and wherever else an event loop runs, it returns at once and serves in the
    background: `server = kf.serve("saved_models")`, and `server.stop()` ends it.

    Args:
        folder: holds `<model>/<integer version>/`, as TF Serving expects.
        host: the address to listen on.
        rest_port: the port to listen on; 0 picks a free one.
        file_system_poll_wait_seconds: between two looks for new and removed versions; 0 looks once.
        block: whether to return at once (False) or at the end (True).

    Returns:
        The server, with its `url` and `stop()`.

    Raises:
        InputError: no such folder, no model in it or none that loads, or a port that cannot be had.
    """
    folder, seconds = path_of(folder), file_system_poll_wait_seconds
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise InputError(
            f"expected file_system_poll_wait_seconds of at least 0 (--file-system-poll-wait-seconds), got {seconds!r}; "
            "change it"
        )
    find_models(folder)
    block = not _in_event_loop() if block is None else block
    owns_process = block and current_thread() is main_thread()
    server = Server(folder, host, rest_port, seconds, xla=not owns_process)
    try:
        with _signals_interrupt() if owns_process else contextlib.nullcontext():
            try:
                server.start()
                if block:
                    server.wait()
                    server.stop()  # unless another thread has
            except KeyboardInterrupt:
                if not owns_process:
                    raise
                server.stop()
    except BaseException:
        server.stop()
        raise
    return server


def _in_event_loop() -> bool:
    """Whether this thread runs an event loop, as that of a notebook does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt, as SIGINT may have done before."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bind(host: str, port: int) -> socket.socket:
    """A socket that holds the port without listening: a client is refused, and can retry, while models load."""
    if not isinstance(port, int) or not 0 <= port < 2**16:
        raise InputError(f"expected a port from 0 to 65535, got {port!r}: choose another rest_port (--rest-port)")
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)  # asyncio sets TCP_NODELAY only where the protocol is named
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener:
            listener.close()
        raise InputError(
            f"expected a free port to listen on, got port {port} of {host} ({error.strerror}): "
            "stop what has it, or choose another rest_port (--rest-port) or host (--host)"
        ) from error
    return listener


def _curl(url: str, model: str, servable: Servable) -> str:
    """A command that calls a model with made-up inputs of the right types and shapes, or else asks for its status."""
    target = shlex.quote(f"{url}/v1/models/{quote(model)}")
    signature_name = next(iter(callable_signatures(servable)), None)
    if signature_name is None:
        return f"curl {target}"
    inputs = {name: _sample(info) for name, info in servable.signatures[signature_name].inputs.items()}
    request = {"inputs": inputs if len(inputs) > 1 else next(iter(inputs.values()))}
    if signature_name != DEFAULT_SIGNATURE:
        request["signature_name"] = signature_name
    return f"curl -d {shlex.quote(json.dumps(request))} {target}:predict"


def _sample(info: TensorInfo) -> Any:
    value = {types_pb2.DT_STRING: "some text", types_pb2.DT_BOOL: True}.get(info.dtype, 1)
    for dim in reversed(info.tensor_shape.dim):
        value = [value] * max(dim.size, 1)
    return value


def _asgi_app(api: RestApi, pool: Executor) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        query = scope["query_string"]
        target = (scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1")
        try:
            body = await _read(request)
            loop = asyncio.get_running_loop()
            status, content = await loop.run_in_executor(pool, api.respond, request.method, target, body)
        except HTTPException as error:
            status, content = error.status_code, error_body(error.detail)
        except ClientDisconnect:
            return
        await Response(content, status, media_type="application/json")(scope, receive, send)

    return app


async def _read(request: Request) -> bytes:
    """The body of a request, decompressed, of which no more than the limit is ever held."""
    inflate = zlib.decompressobj(wbits=31) if "gzip" in request.headers.get("content-encoding", "") else None
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += inflate.decompress(chunk, BODY_LIMIT + 1 - len(body)) if inflate else chunk
            if len(body) > BODY_LIMIT:
                raise HTTPException(413, f"Request body is larger than {BODY_LIMIT} bytes")
    except zlib.error as error:
        raise HTTPException(400, "Failed to uncompress the gzipped body") from error
    if inflate and not inflate.eof:
        raise HTTPException(400, "Failed to uncompress the gzipped body")
    return bytes(body)


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
