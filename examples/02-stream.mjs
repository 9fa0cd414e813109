// Text as it is generated, and what is known at the end.
import { fileURLToPath } from 'node:url';

import { Engine } from 'heddle';

const engine = await Engine.create({ model: fileURLToPath(new URL('models/tiny-lexicon', import.meta.url)) });

// 1. A request starts when it is made. Its stream is an async iterable of deltas: what is new since the last one.
//    Text comes in whole characters, and never includes the beginning of a stop string.
const stream = engine.generate('She was not often', {
  maxTokens: 80,
  temperature: 0.7, // 0 always takes the most likely token
  topP: 0.9,
  seed: 42, // the same seed, prompt and parameters give the same text
  stop: ['\n\n'],
});

// 2. Pulling is the backpressure: when you are slow, this request is paused, and only this one.
for await (const delta of stream) process.stdout.write(delta.text);

// 3. final() may be called during or after the iteration, or instead of it.
const { outputs, usage, timing } = await stream.final();
const [{ finishReason, cumulativeLogprob }] = outputs;
console.log(`\n\nended by ${finishReason}: ${usage.promptTokens} tokens in, ${usage.completionTokens} out`);
console.log(
  `first token after ${timing.timeToFirstTokenMs.toFixed(1)} ms, the last after ${timing.totalMs.toFixed(1)} ms`,
);
console.log(`log-probability of the text: ${cumulativeLogprob.toFixed(2)}`);

await engine.close();
