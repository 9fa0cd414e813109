// Many requests at once. Nothing is special about a batch: start requests, and the engine computes them together.
import { fileURLToPath } from 'node:url';

import { Engine } from 'heddle';

const engine = await Engine.create({
  model: fileURLToPath(new URL('models/tiny-lexicon', import.meta.url)),
  maxNumSeqs: 32, // sequences in one step; more of them wait for their turn
});

// 1. Start them all; each joins the running batch at the next step and leaves it when it ends.
const words = ['river', 'harbor', 'cloud', 'music', 'letter', 'garden', 'window', 'bread', 'winter', 'mountain'];
const start = performance.now();
const streams = words.map((word) =>
  engine.chat([{ role: 'user', content: `What does "${word}" mean?` }], { temperature: 0, maxTokens: 48 }),
);
const results = await Promise.all(streams.map((stream) => stream.final()));
const seconds = (performance.now() - start) / 1e3;

for (const [i, { outputs }] of results.entries()) console.log(`${words[i]}: ${outputs[0].text.trim()}`);
const tokens = results.reduce((sum, { usage }) => sum + usage.completionTokens, 0);
console.log(`\n${tokens} tokens in ${seconds.toFixed(2)} s, ${(tokens / seconds).toFixed(0)} tokens/s together\n`);

// 2. Several answers to one prompt: n. The prompt is computed once, and its KV cache is shared.
const { outputs } = await engine.generate('The garden was', { n: 3, maxTokens: 24, seed: 5 }).final();
for (const { index, text } of outputs) console.log(`${index}: The garden was${text.replace(/\s+/g, ' ')}`);

// 3. In a stream of n sequences, `index` says whose delta it is.
const perSequence = [0, 0, 0];
for await (const { index, tokenIds } of engine.generate('Emma', { n: 3, maxTokens: 16 })) {
  perSequence[index] += tokenIds.length;
}
console.log(`\ntokens of each sequence: ${perSequence.join(', ')}`);

await engine.close();
