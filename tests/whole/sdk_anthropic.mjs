// What a user does with Anthropic's package for JavaScript, as a program of its own (see
// sdk_world.py). Each scenario has a key of its own, so that all run at once; it judges nothing.

import Anthropic from "@anthropic-ai/sdk";

const url = process.argv[2];
const messages = [{ role: "user", content: "hi" }];
const city = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ name: "weather", input_schema: city }];
const breaks = ["dying", "resetting", "ending", "erring", "garbled", "cut", "stalling"];

const client = (key) => new Anthropic({ baseURL: url, apiKey: `sk-${key}`, timeout: 20_000 });
const asked = (model, fields) => ({ model: `sim/${model}`, messages, max_tokens: 20, ...fields });
const ask = (key, model = "small", fields = {}) =>
  client(key).messages.create(asked(model, fields));

const answered = ({ content, stop_reason, usage }) => ({
  text: content.map((block) => block.text ?? "").join(""),
  finish_reason: stop_reason,
  total_tokens: usage.input_tokens + usage.output_tokens,
  calls: content
    .filter((block) => block.type === "tool_use")
    .map((block) => [block.name, JSON.stringify(block.input)]),
});

// Events one by one, as most programs read them: no helper checks that a stream was whole.
async function readRaw(key, model, fields = {}) {
  const events = [];
  for await (const event of await ask(key, model, { ...fields, stream: true })) {
    events.push(event.type);
  }
  return { events };
}

const readHelped = async (key, model, fields = {}) =>
  answered(await client(key).messages.stream(asked(model, fields)).finalMessage());

const scenarios = {
  plain: async () => answered(await ask("plain")),
  streamed: async () => ({
    ...(await readRaw("plain", "small")),
    ...(await readHelped("plain", "small")),
  }),
  tools: async () => answered(await ask("tools", "tools", { tools })),
  tools_streamed: () => readHelped("tools", "tools-streamed", { tools }),
  async counted() {
    const model = { model: "sim/small", messages };
    return { input_tokens: (await client("plain").messages.countTokens(model)).input_tokens };
  },
  async models() {
    const listed = [];
    for await (const model of client("plain").models.list()) listed.push(model.id);
    return { listed, retrieved: (await client("plain").models.retrieve("sim/small")).id };
  },
  over_a_balance: async () => answered(await ask("balance")),
  over_a_balance_streamed: () => readHelped("balance-streamed", "small"),
  async too_long() {
    const long = [{ role: "user", content: "x".repeat(5_000_000) }];
    return answered(await ask("unknown", "small", { messages: long }));
  },
  async over_a_long_window() {
    await ask("long");
    await ask("long");
  },
  async over_a_short_window() {
    await ask("short");
    await ask("short");
  },
  wrong_key: async () => answered(await ask("of-nobody")),
  unknown_model: async () => answered(await ask("unknown", "absent")),
  neuron_falls_silent: async () => answered(await ask("silent", "silent")),
  async hung_up() {
    let seen = 0;
    const fields = { stream: true, max_tokens: 500 };
    for await (const event of await ask("leaving", "endless", fields)) {
      seen += event.type === "content_block_delta" ? 1 : 0;
      if (seen === 7) break;
    }
    return { seen };
  },
};
for (const name of breaks) scenarios[`broken_${name}`] = () => readRaw(name, name);

async function met([scenario, run]) {
  const began = performance.now();
  const facts = { scenario, raised: null };
  try {
    Object.assign(facts, await run());
  } catch (error) {
    facts.raised = error.constructor.name;
    facts.status_code = error.status;
    for (const name of ["type", "message"]) facts[name] = error[name];
    facts.request_id = error.requestID;
  }
  facts.seconds = (performance.now() - began) / 1000;
  console.log(JSON.stringify(facts));
}

await Promise.all(Object.entries(scenarios).map(met));
