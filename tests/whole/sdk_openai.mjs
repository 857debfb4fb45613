// What a user does with OpenAI's package for JavaScript, as a program of its own (see sdk_world.py).
// Each scenario has a key of its own, so that all run at once; it judges nothing.

import OpenAI from "openai";

const url = process.argv[2];
const messages = [{ role: "user", content: "hi" }];
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const breaks = ["dying", "resetting", "ending", "erring", "garbled", "cut", "stalling"];

const client = (key) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: `sk-${key}`, timeout: 20_000 });
const ask = (key, model = "small", fields = {}) =>
  client(key).chat.completions.create({ model: `sim/${model}`, messages, max_tokens: 20, ...fields });

function answered(answer) {
  const { message, finish_reason } = answer.choices[0];
  return {
    text: message.content,
    finish_reason,
    total_tokens: answer.usage.total_tokens,
    calls: (message.tool_calls ?? []).map((call) => [call.function.name, call.function.arguments]),
  };
}

// Read to its end by hand, as most programs do: no helper checks that a stream was whole.
async function read(asking) {
  const facts = { text: "", finish_reason: null, chunks_without_choices: 0, calls: [] };
  for await (const chunk of await asking) {
    facts.chunks_without_choices += chunk.choices.length === 0;
    for (const { delta, finish_reason } of chunk.choices) {
      facts.text += delta.content ?? "";
      facts.finish_reason = finish_reason ?? facts.finish_reason;
      for (const call of delta.tool_calls ?? []) {
        facts.calls[call.index] ??= ["", ""];
        facts.calls[call.index][0] += call.function.name ?? "";
        facts.calls[call.index][1] += call.function.arguments ?? "";
      }
    }
  }
  return facts;
}

const scenarios = {
  plain: async () => answered(await ask("plain")),
  streamed: () => read(ask("plain", "small", { stream: true })),
  tools: async () => answered(await ask("tools", "tools", { tools })),
  tools_streamed: () => read(ask("tools", "tools-streamed", { tools, stream: true })),
  async models() {
    const listed = [];
    for await (const model of client("plain").models.list()) listed.push(model.id);
    return { listed, retrieved: (await client("plain").models.retrieve("sim/small")).id };
  },
  async embedded() {
    const facts = {};
    for (const model of ["vectors", "vectors-as-numbers"]) {
      const asked = { model: `sim/${model}`, input: ["one", "two words"] };
      const answer = await client("vectors").embeddings.create(asked);
      facts[model] = answer.data.map((each) => each.embedding);
    }
    return facts;
  },
  over_a_balance: async () => answered(await ask("balance")),
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
    for await (const chunk of await ask("leaving", "endless", { stream: true, max_tokens: 500 })) {
      seen += chunk.choices.some((choice) => choice.delta.content) ? 1 : 0;
      if (seen === 7) break;
    }
    return { seen };
  },
};
for (const name of breaks) {
  scenarios[`broken_${name}`] = () => read(ask(name, name, { stream: true }));
}

async function met([scenario, run]) {
  const began = performance.now();
  const facts = { scenario, raised: null };
  try {
    Object.assign(facts, await run());
  } catch (error) {
    facts.raised = error.constructor.name;
    facts.status_code = error.status;
    for (const name of ["code", "type", "param", "message"]) facts[name] = error[name];
    facts.request_id = error.requestID;
  }
  facts.seconds = (performance.now() - began) / 1000;
  console.log(JSON.stringify(facts));
}

await Promise.all(Object.entries(scenarios).map(met));
