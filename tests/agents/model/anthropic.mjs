// The Messages API, as Claude Code, opencode and aider use it.
import { asked, turn } from "./scenario.mjs";
import { events, json, newId, noteShown } from "./notes.mjs";

const USAGE = {
  input_tokens: 10,
  output_tokens: 10,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: 0,
};

export function anthropic(request, response, path, body) {
  switch (path) {
    case "/v1/messages":
      return messages(request, response, JSON.parse(body));
    case "/v1/messages/count_tokens":
      return json(response, { input_tokens: 10 });
    case "/api/web/domain_info":
      return json(response, { can_fetch: true });
    case "/v1/models":
      return json(response, { data: [], has_more: false });
    default:
      return json(
        response,
        { type: "error", error: { type: "not_found_error", message: "There is no such page." } },
        404,
      );
  }
}

function messages(request, response, asks) {
  const content = answer(request.headers, asks);
  const stop_reason = content.some((block) => block.type === "tool_use") ? "tool_use" : "end_turn";
  const message = {
    id: newId("msg"),
    type: "message",
    role: "assistant",
    model: asks.model,
    stop_sequence: null,
    usage: USAGE,
  };
  if (!asks.stream) return json(response, { ...message, content, stop_reason });
  const list = [{ type: "message_start", message: { ...message, content: [], stop_reason: null } }];
  content.forEach((block, index) => list.push(...streamed(block, index)));
  list.push({
    type: "message_delta",
    delta: { stop_reason, stop_sequence: null },
    usage: { output_tokens: 10 },
  });
  list.push({ type: "message_stop" });
  events(
    response,
    list.map((data) => ({ name: data.type, data })),
  );
}

/** A block of the answer as the events of a stream. */
function streamed(block, index) {
  const isText = block.type === "text";
  const empty = isText ? { type: "text", text: "" } : { ...block, input: {} };
  const delta = isText
    ? { type: "text_delta", text: block.text }
    : { type: "input_json_delta", partial_json: JSON.stringify(block.input) };
  return [
    { type: "content_block_start", index, content_block: empty },
    { type: "content_block_delta", index, delta },
    { type: "content_block_stop", index },
  ];
}

function answer(headers, { messages, tools = [] }) {
  const names = tools.map((tool) => tool.name ?? tool.type);
  const blocks = messages.map(({ role, content }) => ({
    role,
    content: typeof content === "string" ? [{ type: "text", text: content }] : content,
  }));
  if (!names.some((name) => /^bash$/i.test(name))) {
    return [{ type: "text", text: "A side question has this answer." }];
  }
  seen(blocks);
  const at = blocks.filter(
    ({ role, content }) =>
      role === "assistant" && content.some((block) => block.type === "tool_use"),
  ).length;
  const prompt = texts(blocks.find(({ role }) => role === "user")?.content ?? []).join("\n");
  const { text, calls } = turn(at, prompt, names, () => newId("toolu"));
  const who = {
    session: headers["x-claude-code-session-id"],
    subagent: headers["x-claude-code-agent-id"],
  };
  asked("anthropic", who, calls);
  return [
    { type: "text", text },
    ...calls.map(({ id, name, args }) => ({ type: "tool_use", id, name, input: args })),
  ];
}

function texts(content) {
  return content.filter((block) => block.type === "text").map((block) => block.text);
}

/** Notes each result, with the texts that stand beside it: those of hooks. */
function seen(blocks) {
  for (const [at, { content }] of blocks.entries()) {
    const results = content.filter((block) => block.type === "tool_result");
    if (!results.length) continue;
    const beside = texts(content);
    // An agent may put the texts of hooks into the messages that follow.
    for (let next = at + 1; blocks[next] && blocks[next].role !== "assistant"; next += 1)
      beside.push(...texts(blocks[next].content));
    for (const { tool_use_id, content } of results) {
      noteShown(
        tool_use_id,
        typeof content === "string" ? content : texts(content ?? []).join("\n"),
        beside,
      );
    }
  }
}
