// A Loopwright client for web pages, over gRPC-Web; Node runs it as it stands:
//
//   npm install @connectrpc/connect @connectrpc/connect-web @bufbuild/protobuf @bufbuild/protoc-gen-es
//   protoc -I proto --plugin=node_modules/.bin/protoc-gen-es --es_out=target=js,import_extension=js:. proto/loopwright/v1/*.proto
//   node client.mjs http://127.0.0.1:7070 "What is 17 times 24?"
//
// A web page needs its origin in the server's server.cors_origins.
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { EndReason } from "./loopwright/v1/loop_event_pb.js";
import { LoopService } from "./loopwright/v1/loop_service_pb.js";

const [baseUrl, text] = process.argv.slice(2);
const loops = createClient(LoopService, createGrpcWebTransport({ baseUrl }));

const { sessionId, loopId } = await loops.startLoop({
  requestId: crypto.randomUUID(),
  input: { case: "text", value: text },
});

// The stream ends with the loop.
for await (const { item } of loops.watchLoop({ sessionId, loopId, deltas: true })) {
  if (item.case === "delta" && item.value.content.case === "text") {
    process.stdout.write(item.value.content.value);
  }
  for (const { kind } of item.case === "entry" ? item.value.events : []) {
    if (kind.case === "toolCallRequested") console.log(`\n[${kind.value.call}] ${kind.value.tool}`);
    if (kind.case === "loopEnded") {
      console.log(`\n${EndReason[kind.value.reason]}: ${kind.value.resultText}`);
    }
  }
}
