"""A server of S3 on this machine, for tests."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import make_server

BUCKET = "bucket"
KINDS = {"PUT": "put", "GET": "get", "HEAD": "head", "DELETE": "delete", "POST": "post"}


class S3Server:
    """Moto's server of S3, one request at a time: its "only if there is none" is no single step.

    Attributes:
        requests: how many there were of each kind.
        refuse: what answers instead, where it has an answer: a status such as ``"403 Forbidden"`` and S3's code.
        ignores: headers that the server knows nothing of.
    """

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.refuse: Callable[[str, str], tuple[str, str] | None] = lambda kind, path: None
        self.ignores: tuple[str, ...] = ()
        self._serve = create_backend_app("s3")
        self._turn = threading.Lock()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.client: Any = boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id="id", aws_secret_access_key="key", region_name="us-east-1"
        )

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        with self._turn:
            path = environ["PATH_INFO"]
            listing = environ["REQUEST_METHOD"] == "GET" and "list-type" in environ["QUERY_STRING"]
            kind = "list" if listing else KINDS[environ["REQUEST_METHOD"]]
            self.requests[kind] += 1
            for header in self.ignores:
                environ.pop(f"HTTP_{header.upper().replace('-', '_')}", None)
            refused = self.refuse(kind, path)
            if refused:
                status, code = refused
                start(status, [("Content-Type", "application/xml")])
                return [f"<Error><Code>{code}</Code><Message>refused</Message></Error>".encode()]
            return list(self._serve(environ, start))

    @contextmanager
    def running(self) -> Iterator[S3Server]:
        """Serve for the time of a block."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def objects(self, prefix: str = "") -> list[str]:
        """The names of all objects of the bucket that begin so."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [about["Key"] for page in pages for about in page.get("Contents", ())]

    def read(self, name: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return data

    def write(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=name)

    def clear(self) -> None:
        """Forget all objects and what was counted."""
        if names := self.objects():
            self.client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": name} for name in names]})
        self.requests.clear()
        self.refuse, self.ignores = lambda kind, path: None, ()
