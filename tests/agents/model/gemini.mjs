// The Gemini API: generateContent and streamGenerateContent.
import { asked, turn } from "./scenario.mjs";
import { events, json, newId, noteShown } from "./notes.mjs";

export function gemini(request, response, path, body) {
  const asks = body ? JSON.parse(body) : {};
  if (path.includes(":countTokens")) return json(response, { totalTokens: 10 });
  if (!/:(stream)?generateContent/i.test(path))
    return json(
      response,
      { error: { code: 404, message: "There is no such page.", status: "NOT_FOUND" } },
      404,
    );
  const parts = answer(asks);
  const whole = {
    candidates: [{ index: 0, content: { role: "model", parts }, finishReason: "STOP" }],
    usageMetadata: { promptTokenCount: 10, candidatesTokenCount: 10, totalTokenCount: 20 },
    modelVersion: "scripted",
  };
  return path.includes(":stream") ? events(response, [{ data: whole }]) : json(response, whole);
}

function answer({ contents = [], tools = [], generationConfig = {} }) {
  const names = tools.flatMap((tool) => (tool.functionDeclarations ?? []).map(({ name }) => name));
  if (
    generationConfig.responseMimeType === "application/json" ||
    generationConfig.responseJsonSchema
  )
    return [{ text: structured(generationConfig) }];
  if (!names.length) return [{ text: "A side question has this answer." }];
  contents
    .flatMap(({ parts = [] }) => parts)
    .forEach(({ functionResponse }) => {
      if (functionResponse)
        noteShown(
          functionResponse.id ?? functionResponse.name,
          JSON.stringify(functionResponse.response),
          [],
        );
    });
  const at = contents.filter(
    ({ role, parts }) => role === "model" && parts?.some((part) => part.functionCall),
  ).length;
  const { text, calls } = turn(at, "", names, () => newId("call"));
  asked("gemini", {}, calls);
  return [{ text }, ...calls.map(({ id, name, args }) => ({ functionCall: { id, name, args } }))];
}

/** Side questions ask for JSON: who speaks next, which model. */
function structured({ responseJsonSchema, responseSchema }) {
  const known = { next_speaker: "user", model_choice: "flash" };
  const keys = Object.keys((responseJsonSchema ?? responseSchema ?? {}).properties ?? {});
  return JSON.stringify(Object.fromEntries(keys.map((key) => [key, known[key] ?? "none"])));
}
