"""A real server that speaks the Open Inference Protocol v2, and misbehaves when told to."""

import hashlib
import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import torch

from securitynet.models.targets.backends.http import HttpBackend

CLASSES = 4
SHAPE = (3, 4, 4)
_WEIGHTS = np.random.default_rng(0).normal(size=(int(np.prod(SHAPE)), CLASSES))


def model(images):
    """What is served: logits for N×C×H×W images."""
    return np.asarray(images, dtype=np.float64).reshape(len(images), -1) @ _WEIGHTS


class InferenceServer:
    """Answers on a port of its own. ``misbehave(*actions)`` queues one action per coming POST.

    Attributes:
        asked: Digest of each image that was answered, in order.
        batches: Sizes of the requests that came.
    """

    def __init__(self, *, declared=(-1, *SHAPE), max_batch=None, version="1", datatype="FP32"):
        self.declared, self.max_batch, self.version, self.datatype = declared, max_batch, version, datatype
        self.metadata_status = 200
        self.metadata_body = None
        self.delay = 0.0
        self.classes = CLASSES
        self.actions = deque()
        self.asked, self.batches, self.headers, self.paths = [], [], [], []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def root(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self):
        return f"{self.root}/v2/models/toy"

    def misbehave(self, *actions):
        self.actions.extend(actions)

    def close(self):
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def metadata(self):
        if self.metadata_body is not None:
            return self.metadata_body
        return {
            "name": "toy",
            "versions": [self.version],
            "platform": "test",
            "inputs": [{"name": "pixels", "datatype": self.datatype, "shape": list(self.declared)}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, self.classes]}],
        }

    def answer(self, body):
        """(status, payload) for a well-formed question."""
        question = body["inputs"][0]
        images = np.array(question["data"], dtype=np.float32).reshape(question["shape"])
        self.batches.append(len(images))
        if self.max_batch is not None and len(images) > self.max_batch:
            return 400, {"error": f"batch size {len(images)} exceeds the maximum of {self.max_batch}"}
        if self.declared[0] > 0 and len(images) != self.declared[0]:
            return 500, {"error": f"expected exactly {self.declared[0]} images"}
        if self.declared[-1] == SHAPE[0] and self.declared[1] != SHAPE[0]:
            images = images.transpose(0, 3, 1, 2)
        self.asked += [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        rows = model(images)[:, : self.classes]
        output = {"name": "scores", "datatype": "FP32", "shape": list(rows.shape), "data": rows.reshape(-1).tolist()}
        return 200, {"model_name": "toy", "model_version": self.version, "outputs": [output]}

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer leaves in one piece, without waiting for acknowledgements in between

            def log_message(self, *args):
                """Keep the test output clean."""

            def reply(self, status, payload, headers=()):
                content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                server.paths.append(self.path)
                server.headers.append(dict(self.headers))
                self.reply(server.metadata_status, server.metadata())

            def do_POST(self):
                server.paths.append(self.path)
                server.headers.append(dict(self.headers))
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                action = server.actions.popleft() if server.actions else None
                time.sleep(server.delay)
                if action == "hang":
                    server.released.wait(30)
                    self.close_connection = True
                    return
                if action == "drop":
                    self.close_connection = True
                    self.connection.close()
                    return
                if isinstance(action, tuple):  # (status, payload, headers...)
                    self.reply(*action)
                    return
                status, payload = server.answer(body)
                if callable(action):
                    payload = action(payload)
                self.reply(status, payload)

        return Handler


def backend_of(server, path=None, *, url=None, waits=None, **options):
    options.setdefault("timeout", 5.0)
    sleep = (lambda seconds: None) if waits is None else waits.append
    return HttpBackend(
        url or server.url,
        reference="http://toy",
        store_path=path,
        cap=options.pop("cap", None),
        sleep=sleep,
        **options,
    )


def check(outputs, images):
    np.testing.assert_allclose(outputs.numpy(), model(images.numpy()), rtol=1e-4, atol=1e-4)
    assert outputs.dtype == torch.float32
