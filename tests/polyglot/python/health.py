"""Asks a server how it is, and by reflection what it serves, with the stock packages of gRPC."""
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

with grpc.insecure_channel(sys.argv[1]) as channel:
    for service in ["", "loopwright.v1.LoopService"]:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
        print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    reflection = ProtoReflectionDescriptorDatabase(channel)
    print(*reflection.get_services(), sep="\n")
    print(reflection.FindFileContainingSymbol("loopwright.v1.LoopService").name)
