"""A Loopwright client in plain grpcio: starts a loop and watches it, then starts another and cancels it.

    pip install grpcio-tools
    python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. proto/loopwright/v1/*.proto
    python client.py 127.0.0.1:7070 "What is 17 times 24?"
"""
import sys
import uuid

import grpc
from loopwright.v1 import agent_pb2, loop_event_pb2, loop_service_pb2 as pb, loop_service_pb2_grpc


def start(loops, text, model):
    """Starts a loop in a session of its own."""
    return loops.StartLoop(
        pb.StartLoopRequest(
            request_id=str(uuid.uuid4()),  # given again, the same loop is the answer: retries are safe
            text=text,
            agent=agent_pb2.Agent(model=model),  # empty: the server's default
        )
    )


def watch(loops, loop):
    """Shows a loop as it runs; returns its end, with which the stream ends too."""
    request = pb.WatchLoopRequest(session_id=loop.session_id, loop_id=loop.loop_id, deltas=True)
    for item in loops.WatchLoop(request):
        # Text as it is written. Deltas are for the eye; the entries are what happened.
        print(item.delta.text, end="", flush=True)
        for event in item.entry.events:
            if event.HasField("tool_call_requested"):
                call = event.tool_call_requested
                print(f"\n[{call.call}] {call.tool} {call.arguments_json}")
            elif event.HasField("tool_call_completed"):
                call = event.tool_call_completed
                print(f"[{call.call}] {''.join(part.text for part in call.result.parts)}")
            elif event.HasField("loop_ended"):
                return event.loop_ended


def main(address, text, model=""):
    with grpc.insecure_channel(address) as channel:
        loops = loop_service_pb2_grpc.LoopServiceStub(channel)
        end = watch(loops, start(loops, text, ""))
        print(f"\n{loop_event_pb2.EndReason.Name(end.reason)}: {end.result_text}")

        loop = start(loops, text, model)
        cancel = pb.CancelLoopRequest(request_id=str(uuid.uuid4()), reason="an example")
        cancel.session_id, cancel.loop_id = loop.session_id, loop.loop_id
        loops.CancelLoop(cancel)  # durable when it returns; the loop's end says that all has stopped
        print(f"\n{loop_event_pb2.EndReason.Name(watch(loops, loop).reason)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
