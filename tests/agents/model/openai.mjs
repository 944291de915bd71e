// The Responses API by HTTP, as Codex uses it, and Chat Completions.
import { asked, turn } from "./scenario.mjs";
import { events, json, newId, noteShown } from "./notes.mjs";

export function openai(request, response, path, body) {
  if (path.endsWith("/responses")) {
    const list = respond(request.headers, JSON.parse(body));
    return events(
      response,
      list.map((data) => ({ name: data.type, data })),
    );
  }
  if (path.endsWith("/chat/completions")) return completions(request, response, JSON.parse(body));
  if (path.endsWith("/models")) return json(response, { object: "list", data: [], models: [] });
  return json(response, { error: { message: "There is no such page.", type: "not_found" } }, 404);
}

/** The events that answer one request of the Responses API. */
export function respond(headers, { input = [], tools = [], model }) {
  const items = Array.isArray(input) ? input : [];
  const listed = [
    ...tools,
    ...items.flatMap((item) => (item.type === "additional_tools" ? item.tools : [])),
  ];
  const flat = listed.flatMap((tool) =>
    tool.type === "namespace"
      ? tool.tools.map((inner) => ({ ...inner, namespace: tool.name }))
      : [tool],
  );
  const script = flat.find((tool) => tool.type === "custom" && tool.name === "exec");
  const names = flat.map((tool) => tool.name ?? tool.type);
  if (script) names.push("exec_command");
  seen(items);
  const { text, calls } = turn(turnsPlayed(items), "", names, () => newId("call"));
  const output = [
    {
      type: "message",
      id: newId("msg"),
      role: "assistant",
      status: "completed",
      content: [{ type: "output_text", text, annotations: [] }],
    },
  ];
  output.push(...(script && calls.length ? [scripted(script, calls)] : calls.map(called)));
  asked("openai", { session: headers.session_id ?? headers["session-id"] }, calls);
  return described(output, model);
}

const isCall = (item) => /(^|_)(function_call|custom_tool_call)$/.test(item?.type ?? "");

/** A turn is a run of calls that follow each other. */
function turnsPlayed(items) {
  return items.filter((item, at) => isCall(item) && !isCall(items[at - 1])).length;
}

function called({ id, name, args }) {
  return {
    type: "function_call",
    id: newId("fc"),
    call_id: id,
    name,
    arguments: JSON.stringify(args),
    status: "completed",
  };
}

/** Newer versions of Codex have one tool that runs a script, which makes all calls of a turn. */
function scripted(tool, calls) {
  const made = calls.map(({ name, args }) => `tools.${name}(${JSON.stringify(args)})`).join(", ");
  const id = newId("call");
  calls.forEach((call) => {
    call.id = id;
  });
  const input = `for (const one of await Promise.all([${made}])) text(one);`;
  return {
    type: "custom_tool_call",
    id: newId("ctc"),
    call_id: id,
    name: tool.name,
    namespace: tool.namespace,
    input,
    status: "completed",
  };
}

function described(output, model) {
  const response = {
    id: newId("resp"),
    object: "response",
    created_at: 0,
    status: "in_progress",
    model,
    output: [],
  };
  const usage = {
    input_tokens: 10,
    output_tokens: 10,
    total_tokens: 20,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens_details: { reasoning_tokens: 0 },
  };
  const list = [{ type: "response.created", response }];
  output.forEach((item, output_index) => {
    list.push({
      type: "response.output_item.added",
      output_index,
      item: { ...item, status: "in_progress" },
    });
    list.push({ type: "response.output_item.done", output_index, item });
  });
  list.push({
    type: "response.completed",
    response: { ...response, status: "completed", output, usage },
  });
  return list.map((event, sequence_number) => ({ ...event, sequence_number }));
}

/** Notes each result, with the texts that stand between the call and the model's next words: those
 * of hooks. */
function seen(items) {
  items.forEach((item, at) => {
    if (!/call_output$/.test(item.type ?? "")) return;
    const { output } = item;
    const words = ({ type, role }) => type === "message" && role === "assistant";
    const from = items.findLastIndex((it, place) => place < at && words(it));
    const next = items.findIndex((it, place) => place > at && words(it));
    const turn = items.slice(from + 1, next < 0 ? items.length : next);
    const beside = turn
      .filter(({ type, role }) => type === "message" && role === "developer")
      .flatMap(({ content }) => content.map(({ text }) => text));
    noteShown(item.call_id, typeof output === "string" ? output : JSON.stringify(output), beside);
  });
}

function completions(request, response, { messages = [], tools = [], stream, model }) {
  const names = tools.map((tool) => tool.function.name);
  const at = messages.filter(
    (message) => message.role === "assistant" && message.tool_calls?.length,
  ).length;
  messages
    .filter(({ role }) => role === "tool")
    .forEach(({ tool_call_id, content }) => noteShown(tool_call_id, content, []));
  const { text, calls } = turn(at, "", names, () => newId("call"));
  asked("openai", {}, calls);
  const tool_calls = calls.map(({ id, name, args }, index) => ({
    index,
    id,
    type: "function",
    function: { name, arguments: JSON.stringify(args) },
  }));
  const message = {
    role: "assistant",
    content: text,
    ...(tool_calls.length ? { tool_calls } : {}),
  };
  const finish_reason = tool_calls.length ? "tool_calls" : "stop";
  const base = { id: newId("chatcmpl"), object: "chat.completion", created: 0, model };
  if (!stream)
    return json(response, {
      ...base,
      choices: [{ index: 0, finish_reason, message }],
      usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
    });
  const chunk = (delta, end = null) => ({
    data: {
      ...base,
      object: "chat.completion.chunk",
      choices: [{ index: 0, delta, finish_reason: end }],
    },
  });
  return events(response, [chunk(message), chunk({}, finish_reason), { data: "[DONE]" }]);
}
