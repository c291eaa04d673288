"""`kerasformer serve`: the models of a folder behind TF Serving's REST API, over HTTP."""

import json
import shlex
import signal
import socket
import sys
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote

import tensorflow as tf
import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from kerasformer.errors import InputError
from kerasformer.serving.rest import RestApi, error_body
from kerasformer.serving.servables import Servable, Servables, find_models
from kerasformer.serving.session import DEFAULT_SIGNATURE

BODY_LIMIT = 32 * 2**20  # bytes, once decompressed
GRACE_SECONDS = 40  # for the requests under way at a stop; a run times out before
BACKLOG = 2048  # connections that wait to be accepted


def serve(folder: Path, *, host: str = "127.0.0.1", rest_port: int = 8501) -> None:
    """Serve the newest version of each model of a folder until SIGINT or SIGTERM, which end the process with code 0.

    Args:
        folder: holds `<model>/<integer version>/`, as TF Serving expects.
        host: the address to listen on.
        rest_port: the port to listen on; 0 picks a free one.

    Raises:
        InputError: no such folder, no model in it or none that loads, or a port that cannot be had.
    """
    models = find_models(Path(folder))
    tf.get_logger().setLevel("ERROR")  # it warns that the session loader is deprecated, which TF Serving runs on
    with _bind(host, rest_port) as listener:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))  # uvicorn finishes the requests, then raises it again
        servables = Servables()
        loaded = {name: servable for name, path in models.items() if (servable := _load(servables, name, path))}
        if not loaded:
            raise InputError(f"expected a model that loads, found none in {folder}: mend one of those above")
        listener.listen(BACKLOG)
        port = listener.getsockname()[1]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _print(f"Serving at {url}; try:\n{_curl(url, *next(iter(loaded.items())))}")
        config = uvicorn.Config(
            _asgi_app(RestApi(servables)),
            lifespan="off",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _bind(host: str, port: int) -> socket.socket:
    """A socket that holds the port without listening: a client is refused, and can retry, while models load."""
    if not 0 <= port < 2**16:
        raise InputError(f"expected a port from 0 to 65535, got {port}: choose another with --rest-port")
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
            "choose another with --rest-port or --host"
        ) from error
    return listener


def _load(servables: Servables, name: str, path: Path) -> Servable | None:
    """Load a model and say how that went."""
    started = perf_counter()
    version = servables.load(name, path)
    if version.error:
        _print(f"{name} version {version.number}: failed to load: {version.error.message}")
        return None
    signatures = ", ".join(_callable_signatures(version.servable))
    _print(f"{name} version {version.number}: {signatures} ({perf_counter() - started:.2f} s)")
    return version.servable


def _callable_signatures(servable: Servable) -> list[str]:
    """The signatures that take inputs, the default one first."""
    names = (name for name, signature in servable.signatures.items() if signature.inputs)
    return sorted(names, key=lambda name: (name != DEFAULT_SIGNATURE, name))


def _curl(url: str, model: str, servable: Servable) -> str:
    """A command that calls a model with made-up inputs of the right types and shapes, or else asks for its status."""
    target = shlex.quote(f"{url}/v1/models/{quote(model)}")
    signature_name = next(iter(_callable_signatures(servable)), None)
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


def _asgi_app(api: RestApi) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        query = scope["query_string"]
        target = (scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1")
        try:
            body = await _read(request)
            status, content = await run_in_threadpool(api.respond, request.method, target, body)
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
