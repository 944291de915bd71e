// Name servers. The gate's answers with the address of the model for every name but those that end
// in `.invalid`; the one of programs that go past the proxy has no name.
import dgram from "node:dgram";
import { note } from "./notes.mjs";

const A = 1;

export function nameServer(port, kind, address) {
  const socket = dgram.createSocket("udp4");
  socket.on("message", (query, peer) => {
    const { name, end } = question(query);
    const type = query.readUInt16BE(end);
    note("names", { server: kind, name, type });
    const found = address && !name.endsWith(".invalid");
    const records = found && type === A ? [answer(address)] : [];
    const head = Buffer.from(query.subarray(0, 12));
    head.writeUInt16BE(found ? 0x8180 : 0x8183, 2);
    [1, records.length, 0, 0].forEach((count, at) => head.writeUInt16BE(count, 4 + 2 * at));
    socket.send(
      Buffer.concat([head, query.subarray(12, end + 4), ...records]),
      peer.port,
      peer.address,
    );
  });
  socket.bind(port, "127.0.0.1");
}

function question(query) {
  const labels = [];
  let at = 12;
  while (query[at]) {
    labels.push(query.subarray(at + 1, at + 1 + query[at]).toString());
    at += query[at] + 1;
  }
  return { name: labels.join("."), end: at + 1 };
}

/** One address, for a minute, for the name at offset 12. */
function answer(address) {
  return Buffer.from([0xc0, 12, 0, A, 0, 1, 0, 0, 0, 60, 0, 4, ...address.split(".").map(Number)]);
}
