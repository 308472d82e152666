"""A Loopwright sidecar in plain grpcio: python sidecar.py 127.0.0.1:7070 (packages as for client.py)."""
import json
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
from loopwright.v1 import message_pb2, sidecar_service_pb2 as pb, sidecar_service_pb2_grpc
from loopwright.v1 import tool_pb2, tool_service_pb2, tool_service_pb2_grpc

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


class Words(sidecar_service_pb2_grpc.SidecarServiceServicer):
    def Describe(self, request, context):
        count = tool_pb2.ToolSpec(
            name="count",
            description="Counts the words of a text.",
            input_schema_json=json.dumps(SCHEMA),
            effect_class=tool_pb2.EFFECT_CLASS_READ_ONLY,  # safe to repeat after a crash
        )
        return pb.DescribeResponse(tools=[count])

    def CallTool(self, request, context):
        """Any progress, then one result. The server has checked the arguments against the schema."""
        yield pb.CallToolResponse(progress=tool_pb2.ToolProgress(message="counting"))
        words = len(json.loads(request.arguments_json)["text"].split())
        answer = message_pb2.Part(text=f"The text has {words} words.")
        yield pb.CallToolResponse(result=tool_pb2.ToolResult(parts=[answer]))


def stay_registered(tools, endpoint):
    lease = None
    while True:
        try:
            if lease is None:
                who = {"name": "words", "endpoint": endpoint, "request_id": str(uuid.uuid4())}
                lease = tools.RegisterSidecar(tool_service_pb2.RegisterSidecarRequest(**who))
            else:
                tools.RenewLease(tool_service_pb2.RenewLeaseRequest(lease_id=lease.lease_id))
            time.sleep(lease.lease_ttl.seconds / 3)
        except grpc.RpcError as error:
            print(error.details(), file=sys.stderr)
            if error.code() == grpc.StatusCode.NOT_FOUND:
                lease = None  # it ran out: register again
            time.sleep(0.5)


def main(address, listen="127.0.0.1:0"):
    server = grpc.server(ThreadPoolExecutor())
    sidecar_service_pb2_grpc.add_SidecarServiceServicer_to_server(Words(), server)
    port = server.add_insecure_port(listen)  # or unix:/PATH, in the server's tools.unix_dir
    server.start()
    endpoint = listen if listen.startswith("unix:") else f"http://127.0.0.1:{port}"
    with grpc.insecure_channel(address) as channel:
        stay_registered(tool_service_pb2_grpc.ToolServiceStub(channel), endpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
