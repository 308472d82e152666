"""Runs loops over Converse, one after the other, through any number of lost connections.

    python converse.py 127.0.0.1:7070 MODEL SESSIONS

Prints lines of JSON: {"seq"} for each entry, and at the end of each loop {"session", "shown", "gaps", "differing",
"connections"}. `shown` is the text of each model call as a person saw it, put together from deltas alone; `gaps`
counts deltas beyond what was there, `differing` texts that are not how the fact begins.
"""
import json
import sys
import uuid

import grpc
from loopwright.v1 import agent_pb2, loop_service_pb2 as pb, loop_service_pb2_grpc

# Codes of a connection that was lost; with any other, trying again is of no use.
LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED}
# A new channel connects at once; the shared pool would make it wait for the one before.
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


class Screen:
    """What a person sees of each attempt at a model call: its text so far, by where it began."""

    def __init__(self):
        self.texts, self.shown, self.ended, self.gaps, self.differing = {}, {}, set(), 0, 0

    def delta(self, delta):
        attempt = (delta.call, delta.attempt)
        text = self.texts.setdefault((attempt, delta.anchor_seq), b"")
        piece = delta.text.encode()
        known = text[delta.offset :]  # sent again after a lost connection
        self.gaps += delta.offset > len(text)
        self.differing += attempt in self.ended or not (piece.startswith(known) or known.startswith(piece))
        self.texts[attempt, delta.anchor_seq] = text + piece[len(known) :]

    def completed(self, event):
        attempt = (event.call, event.attempt)
        fact = "".join(part.text for part in event.message.parts).encode()
        texts = [text for (of, _), text in self.texts.items() if of == attempt]
        self.differing += len(texts) > 1 or not all(fact.startswith(text) for text in texts)
        self.shown[event.call] = b"".join(texts).decode()
        self.ended.add(attempt)


class Session:
    """One loop, by what survives a lost connection: the request that starts it, and the cursor."""

    def __init__(self, model):
        self.id, self.cursor, self.screen, self.ended = f"py-{uuid.uuid4()}", 0, Screen(), False
        agent = agent_pb2.Agent(model=model)
        self.start = pb.StartLoopRequest(request_id="start", session_id=self.id, agent=agent, text="speak")

    def command(self):
        if self.cursor == 0:
            return pb.ConverseRequest(start=self.start)  # given again, it starts nothing
        attach = pb.ConverseAttach(session_id=self.id, after_seq=self.cursor, deltas=True)
        return pb.ConverseRequest(attach=attach)

    def item(self, item):
        if item.reply.status.code:
            sys.exit(f"refused: {item.reply.status.message}")
        if item.delta.text:
            self.screen.delta(item.delta)
        if not item.HasField("entry"):
            return
        self.cursor = item.entry.seq
        print(json.dumps({"seq": self.cursor}), flush=True)
        for event in item.entry.events:
            if event.HasField("model_call_completed"):
                self.screen.completed(event.model_call_completed)
            self.ended |= event.HasField("loop_ended")

    def connect(self, address):
        """Watches until the loop ends or the connection is lost."""
        with grpc.insecure_channel(address, options=OPTIONS) as channel:
            loops = loop_service_pb2_grpc.LoopServiceStub(channel)
            try:
                # One command and no more closes the client's half; the server goes on sending.
                for item in loops.Converse(iter([self.command()]), timeout=120):
                    self.item(item)
                    if self.ended:
                        return
            except grpc.RpcError as error:
                if error.code() not in LOST:
                    raise


def main(address, model, sessions):
    for _ in range(int(sessions)):
        session, connections = Session(model), 0
        while not session.ended:
            session.connect(address)
            connections += 1
        seen = session.screen
        end = {"session": session.id, "shown": seen.shown, "gaps": seen.gaps, "differing": seen.differing}
        print(json.dumps({**end, "connections": connections}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
