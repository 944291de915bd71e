// The WebSocket of the Responses API (RFC 6455, server side, without extensions).
import { createHash } from "node:crypto";
import { note } from "./notes.mjs";
import { respond } from "./openai.mjs";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

export function upgrade(request, socket) {
  note("requests", {
    host: request.headers.host,
    method: "UPGRADE",
    path: request.url,
    headers: request.headers,
  });
  if (process.env.WEBSOCKET !== "yes")
    return socket.end("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
  const accept = createHash("sha1")
    .update(request.headers["sec-websocket-key"] + GUID)
    .digest("base64");
  socket.write(
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n" +
      `sec-websocket-accept: ${accept}\r\n\r\n`,
  );
  const conversation = { before: [] };
  let unread = Buffer.alloc(0),
    message = Buffer.alloc(0);
  socket.on("error", () => {});
  socket.on("data", (data) => {
    unread = Buffer.concat([unread, data]);
    for (let frame; (frame = take(unread)); unread = frame.rest) {
      if (frame.opcode === 8) return socket.end(Buffer.from([0x88, 0]));
      if (frame.opcode === 9) {
        socket.write(framed(0xa, frame.payload));
        continue;
      }
      if (frame.opcode > 2) continue;
      message = Buffer.concat([message, frame.payload]);
      if (!frame.isLast) continue;
      const text = message.toString();
      message = Buffer.alloc(0);
      play(conversation, request.headers, JSON.parse(text)).forEach((event) =>
        socket.write(framed(1, Buffer.from(JSON.stringify(event)))),
      );
    }
  });
}

/** Answers one message. Input that follows a response continues its conversation. */
function play(conversation, headers, asks) {
  if (asks.type && asks.type !== "response.create") return [];
  const before = asks.previous_response_id ? conversation.before : [];
  const input = [...before, ...(asks.input ?? [])];
  const list = respond(headers, { ...asks, input });
  conversation.before = [...input, ...list.at(-1).response.output];
  return list;
}

/** The first frame of the bytes, unmasked; undefined while some of it has not arrived. */
function take(bytes) {
  if (bytes.length < 2) return undefined;
  const short = bytes[1] & 127;
  const start = { 126: 4, 127: 10 }[short] ?? 2;
  if (bytes.length < start) return undefined;
  const length =
    short === 126
      ? bytes.readUInt16BE(2)
      : short === 127
        ? Number(bytes.readBigUInt64BE(2))
        : short;
  const end = start + 4 + length;
  if (bytes.length < end) return undefined;
  const payload = Buffer.from(bytes.subarray(start + 4, end));
  for (let at = 0; at < length; at += 1) payload[at] ^= bytes[start + (at & 3)];
  return {
    opcode: bytes[0] & 15,
    isLast: Boolean(bytes[0] & 128),
    payload,
    rest: bytes.subarray(end),
  };
}

function framed(opcode, payload) {
  const { length } = payload;
  if (length < 126) return Buffer.concat([Buffer.from([0x80 | opcode, length]), payload]);
  const head = Buffer.alloc(length < 65536 ? 4 : 10);
  head[0] = 0x80 | opcode;
  head[1] = length < 65536 ? 126 : 127;
  if (length < 65536) head.writeUInt16BE(length, 2);
  else head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, payload]);
}
