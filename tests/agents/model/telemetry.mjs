// A receiver of OTLP by HTTP and JSON: what the agent itself reports, as a flat list.
import { note } from "./notes.mjs";

const value = (any) => Object.values(any ?? {})[0];

export function telemetry(body) {
  for (const { scopeLogs = [] } of body.resourceLogs ?? []) {
    for (const { attributes = [] } of scopeLogs.flatMap(({ logRecords }) => logRecords)) {
      const of = Object.fromEntries(attributes.map((one) => [one.key, value(one.value)]));
      note("telemetry", {
        event: of["event.name"],
        session: of["session.id"],
        prompt: of["prompt.id"],
        call: of.tool_use_id,
        tool: of.tool_name,
      });
    }
  }
}
