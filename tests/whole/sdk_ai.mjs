// What a user does with the AI SDK, as a program of its own (see sdk_world.py). opencode is such a
// program. The second argument says in whose dialect: openai or anthropic. Each scenario has a key
// of its own, so that all run at once; it judges nothing.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, jsonSchema, streamText, tool } from "ai";

const [, , dialect, url] = process.argv;
const city = { type: "object", properties: { city: { type: "string" } } };
const tools = { weather: tool({ inputSchema: jsonSchema(city) }) };
const breaks = ["dying", "resetting", "ending", "erring", "garbled", "cut", "stalling"];

function provider(key) {
  const reached = { name: "cortexd", baseURL: `${url}/v1`, apiKey: `sk-${key}` };
  return dialect === "openai"
    ? createOpenAICompatible({ ...reached, includeUsage: true })
    : createAnthropic(reached);
}

function asked(key, model = "small", fields = {}) {
  return { model: provider(key)(`sim/${model}`), prompt: "hi", maxOutputTokens: 20, ...fields };
}

const ask = async (...what) => answered(await generateText(asked(...what)));
const answered = ({ text, finishReason, usage, toolCalls }) => ({
  text,
  finish_reason: finishReason,
  total_tokens: usage.totalTokens,
  calls: toolCalls.map((call) => [call.toolName, JSON.stringify(call.input)]),
});

// A failure is a part of the stream, which a program has to look for.
async function read(...what) {
  const result = streamText({ ...asked(...what), onError() {} });
  const facts = { text: "", finish_reason: null, total_tokens: null, calls: [] };
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") facts.text += part.text;
    if (part.type === "tool-call") facts.calls.push([part.toolName, JSON.stringify(part.input)]);
    if (part.type === "error") throw part.error;
    if (part.type === "finish") {
      facts.finish_reason = part.finishReason;
      facts.total_tokens = part.totalUsage.totalTokens;
    }
  }
  return facts;
}

const scenarios = {
  plain: () => ask("plain"),
  streamed: () => read("plain"),
  tools: () => ask("tools", "tools", { tools }),
  tools_streamed: () => read("tools", "tools-streamed", { tools }),
  over_a_balance: () => ask("balance"),
  async over_a_long_window() {
    await ask("long");
    await ask("long");
  },
  async over_a_short_window() {
    await ask("short");
    await ask("short");
  },
  wrong_key: () => ask("of-nobody"),
  unknown_model: () => ask("unknown", "absent"),
  neuron_falls_silent: () => ask("silent", "silent"),
  async hung_up() {
    const hangUp = new AbortController();
    const fields = { abortSignal: hangUp.signal, maxOutputTokens: 500 };
    let seen = 0;
    for await (const part of streamText(asked("leaving", "endless", fields)).fullStream) {
      seen += part.type === "text-delta" ? 1 : 0;
      if (seen === 7) hangUp.abort();
    }
    return { seen };
  },
};
if (dialect === "openai") {
  scenarios.embedded = async () => {
    const facts = {};
    for (const name of ["vectors", "vectors-as-numbers"]) {
      const model = provider("vectors").embeddingModel(`sim/${name}`);
      facts[name] = (await embedMany({ model, values: ["one", "two words"] })).embeddings;
    }
    return facts;
  };
}
for (const name of breaks) scenarios[`broken_${name}`] = () => read(name, name);

async function met([scenario, run]) {
  const began = performance.now();
  const facts = { scenario, raised: null };
  try {
    Object.assign(facts, await run());
  } catch (error) {
    // What is thrown is an Error of the package, or the error object that came in the stream.
    const last = error.lastError ?? error;
    facts.raised = error.name ?? "error object";
    facts.status_code = last.statusCode;
    facts.message = last.message;
    facts.code = last.data?.error?.code ?? last.code;
  }
  facts.seconds = (performance.now() - began) / 1000;
  console.log(JSON.stringify(facts));
}

await Promise.all(Object.entries(scenarios).map(met));
