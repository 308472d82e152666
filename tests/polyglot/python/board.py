"""Every loop of a Loopwright server in plain grpcio, as a dashboard knows it: python board.py 127.0.0.1:7070

Shows each change until no loop goes on any more.
"""
import sys

import grpc
from loopwright.v1 import loop_service_pb2 as pb, loop_service_pb2_grpc, session_pb2


def show(one):
    print(f"{one.session_id}/{one.loop_id} {session_pb2.LoopState.Name(one.state)}", flush=True)


def main(address):
    board = None  # by session and loop; nothing before the first snapshot is whole
    with grpc.insecure_channel(address) as channel:
        loops = loop_service_pb2_grpc.LoopServiceStub(channel)
        parts = []
        for told in loops.WatchLoops(pb.WatchLoopsRequest()):
            kind = told.WhichOneof("item")
            if kind == "snapshot":
                parts.extend(told.snapshot.loops)
            elif kind == "snapshot_end":
                board = {(one.session_id, one.loop_id): one for one in parts}
                print(f"{told.snapshot_end.loops} loops", flush=True)
                for one in parts:
                    show(one)
            elif kind == "changed":
                one = told.changed
                board[one.session_id, one.loop_id] = one
                show(one)
            elif kind == "deleted_session_id":
                board = {at: one for at, one in board.items() if at[0] != told.deleted_session_id}
            if board and all(one.state == session_pb2.LOOP_STATE_ENDED for one in board.values()):
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
