"""A Loopwright sidecar that can say what became of a call: python ledger.py 127.0.0.1:7070 FOLDER

Its tool must not run twice, so the server never repeats it. A server that lost the outcome asks instead.
Beside `sidecar.py`, which it registers as.
"""
import json
import pathlib
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from loopwright.v1 import message_pb2, sidecar_service_pb2 as pb, sidecar_service_pb2_grpc
from loopwright.v1 import tool_pb2, tool_service_pb2_grpc

from sidecar import stay_registered

SCHEMA = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}


class Ledger(sidecar_service_pb2_grpc.SidecarServiceServicer):
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.lock = threading.Lock()
        self.since = time.time()  # nothing is known of calls from before
        self.answers = {}  # by key: the result, or None while the call runs
        self.bound = {}  # by key: the attempt and the epoch of which it was said that they never started

    def Describe(self, request, context):
        post = tool_pb2.ToolSpec(
            name="post",
            description="Posts an amount.",
            input_schema_json=json.dumps(SCHEMA),
            effect_class=tool_pb2.EFFECT_CLASS_AT_MOST_ONCE,
            supports_lookup=True,
        )
        return pb.DescribeResponse(tools=[post])

    def CallTool(self, request, context):
        with self.lock:
            attempt, epoch = self.bound.get(request.key, (0, 0))
            late = request.attempt <= attempt or request.epoch < epoch
            if late or request.key in self.answers:
                refusal = pb.NotExecuted(reason="it came too late, or twice")
                yield pb.CallToolResponse(not_executed=refusal)
                return
            self.answers[request.key] = None
        text = self.post(json.loads(request.arguments_json)["amount"])
        result = tool_pb2.ToolResult(parts=[message_pb2.Part(text=text)])
        with self.lock:
            self.answers[request.key] = result
        yield pb.CallToolResponse(result=result)  # perhaps to nobody: the answer is kept

    def LookupCall(self, request, context):
        with self.lock:
            if request.key in self.answers:
                result = self.answers[request.key]
                if result is None:
                    return pb.LookupCallResponse(running=pb.CallRunning())
                return pb.LookupCallResponse(completed=result)
            if request.first_dispatched_at.ToSeconds() <= self.since:
                why = pb.CallNotKnown(reason="it may have run before this sidecar was started")
                return pb.LookupCallResponse(not_known=why)
            self.bound[request.key] = (request.attempt, request.epoch)
            return pb.LookupCallResponse(never_started=pb.CallNeverStarted())

    def post(self, amount):
        """The effect: one line. It waits for a file, so that a test can do something meanwhile."""
        (self.folder / "begun").touch()
        while not (self.folder / "go").exists():
            time.sleep(0.01)
        with open(self.folder / "ledger", "a") as ledger:
            ledger.write(f"{amount}\n")
        return f"Posted {amount}."


def main(address, folder):
    server = grpc.server(ThreadPoolExecutor())
    sidecar_service_pb2_grpc.add_SidecarServiceServicer_to_server(Ledger(folder), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(address) as channel:
        tools = tool_service_pb2_grpc.ToolServiceStub(channel)
        stay_registered(tools, f"http://127.0.0.1:{port}")


if __name__ == "__main__":
    main(*sys.argv[1:])
