"""A gRPC server and its client, as others write them: `grpc_peer.py serve`, `grpc_peer.py call ADDRESS AUTHORITY [WHAT...]`."""

import sys
import threading
import time
from concurrent import futures

import grpc

LARGE = 4 << 20
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def say(text):
    # In one write: threads say something at the same time.
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


# ---- the server ----


def unary(request, context):
    return request


def server_stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def client_stream(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield b"re: " + request


def metadata(request, context):
    sent = dict(context.invocation_metadata())
    context.send_initial_metadata([("x-initial", sent["x-asked"]), ("x-bytes-bin", sent["x-asked-bin"])])
    context.set_trailing_metadata([("x-trailing", "behind"), ("x-trailing-bin", b"\0\xff")])
    return sent["x-forwarded-host"].encode()


def fail(request, context):
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "100 % \u00fcber\nuse")


def forever(request, context):
    over = threading.Event()
    if not context.add_callback(over.set):
        over.set()
    yield b"begun"
    over.wait()
    say("cancelled")


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(64), options=UNLIMITED)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Forever": grpc.unary_stream_rpc_method_handler(forever),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", handlers),))
    say(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


# ---- the client: each check says its name once it has passed ----


class Client:
    def __init__(self, address, authority):
        options = UNLIMITED + [("grpc.default_authority", authority), ("grpc.enable_retries", 0)]
        self.channel = grpc.insecure_channel(address, options=options)

    def method(self, kind, name):
        return getattr(self.channel, kind)("/test.Test/" + name)

    def unary(self):
        call = self.method("unary_unary", "Unary")
        for message in [b"", b"x", bytes(range(256)) * 300, b"l" * LARGE]:
            assert call(message, timeout=20) == message

    def server_stream(self):
        call = self.method("unary_stream", "ServerStream")
        assert list(call(b"500", timeout=20)) == [b"%d" % number for number in range(500)]
        assert list(call(b"0", timeout=20)) == []

    def client_stream(self):
        call = self.method("stream_unary", "ClientStream")
        assert call((b"x" * 65536 for _ in range(100)), timeout=20) == b"6553600"
        assert call(iter([]), timeout=20) == b"0"

    def both(self):
        # Each message is sent when the answer to the one before has come.
        answered = threading.Semaphore(1)

        def messages():
            for number in range(50):
                answered.acquire()
                yield b"%d" % number

        came = []
        for answer in self.method("stream_stream", "Both")(messages(), timeout=20):
            came.append(answer)
            answered.release()
        assert came == [b"re: %d" % number for number in range(50)], came

    def metadata(self):
        call = self.method("unary_unary", "Metadata")
        answer, call = call.with_call(b"", timeout=20, metadata=[("x-asked", "for"), ("x-asked-bin", b"\1\2")])
        assert answer == b"web.relay.test", answer
        initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
        assert (initial["x-initial"], initial["x-bytes-bin"]) == ("for", b"\1\2"), initial
        assert (trailing["x-trailing"], trailing["x-trailing-bin"]) == ("behind", b"\0\xff"), trailing

    def fails(self, call, *expected):
        try:
            call()
        except grpc.RpcError as error:
            assert error.code() in expected, error
            return error.details()
        raise AssertionError("it did not fail")

    def status(self):
        details = self.fails(
            lambda: self.method("unary_unary", "Fail")(b"", timeout=20), grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        assert details == "100 % \u00fcber\nuse", details
        self.fails(lambda: self.method("unary_unary", "Nothing")(b"", timeout=20), grpc.StatusCode.UNIMPLEMENTED)

    def deadline(self):
        # Long enough for a busy machine to begin.
        call = self.method("unary_stream", "Forever")(b"", timeout=2)
        assert next(call) == b"begun"
        self.fails(lambda: next(call), grpc.StatusCode.DEADLINE_EXCEEDED)

    def cancel(self):
        call = self.method("unary_stream", "Forever")(b"", timeout=20)
        assert next(call) == b"begun"
        call.cancel()
        self.fails(lambda: next(call), grpc.StatusCode.CANCELLED)

    def many(self):
        call = self.method("unary_unary", "Unary")
        calls = [call.future(b"%d" % number, timeout=20) for number in range(300)]
        assert [one.result() for one in calls] == [b"%d" % number for number in range(300)]

    def broken(self):
        """What is under way when the server goes."""
        call = self.method("unary_stream", "Forever")(b"", timeout=20)
        assert next(call) == b"begun"
        say("under way")
        status = grpc.StatusCode
        self.fails(lambda: next(call), status.UNAVAILABLE, status.INTERNAL, status.CANCELLED, status.UNKNOWN)

    def unavailable(self):
        """The relay's own words."""
        say(self.fails(lambda: self.method("unary_unary", "Unary")(b"", timeout=20), grpc.StatusCode.UNAVAILABLE))

    def load(self):
        """Calls for two seconds: none of them may fail."""
        call, over, count = self.method("unary_unary", "Unary"), time.monotonic() + 2, 0
        while time.monotonic() < over:
            assert call(b"load", timeout=20) == b"load"
            count += 1
        say(count)


ALL = ["unary", "server_stream", "client_stream", "both", "metadata", "status", "deadline", "cancel", "many"]

if sys.argv[1] == "serve":
    serve()
else:
    client = Client(sys.argv[2], sys.argv[3])
    for check in sys.argv[4:] or ALL:
        getattr(client, check)()
        say("ok " + check)
