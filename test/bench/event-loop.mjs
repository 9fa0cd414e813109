// Event-loop delay with 64 concurrent streams beside an idle engine, in turns: `npm run bench:event-loop`.
//
// Prints the 99th percentile of monitorEventLoopDelay for each round, and the median of the differences.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { Engine } from 'heddle';

const ROUNDS = Number(process.argv[2] ?? 5);
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const model = path.join(root, 'examples/models/tiny-lexicon');
const prefix = 'She had always been told that a walk before breakfast was the best cure for low spirits, and '.repeat(
  9,
);

const engine = await Engine.create({ model, maxNumSeqs: 64, kvCacheBytes: 256 * 2 ** 20 });

async function stream(i) {
  let tokens = 0;
  for await (const delta of engine.generate(`${prefix}${i}`, { maxTokens: 64, ignoreEos: true })) {
    tokens += delta.tokenIds.length;
  }
  return tokens;
}

async function percentile99(body) {
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
  await body();
  histogram.disable();
  return histogram.percentile(99) / 1e6;
}

await stream(0);
const differences = [];
for (let round = 0; round < ROUNDS; round++) {
  const idle = await percentile99(() => new Promise((resolve) => setTimeout(resolve, 2000)));
  const before = engine.stats();
  const busy = await percentile99(() => Promise.all(Array.from({ length: 64 }, (_, i) => stream(i))));
  const steps = engine.stats().steps - before.steps;
  differences.push(busy - idle);
  console.log(`round ${round}: idle p99 ${idle.toFixed(2)} ms, 64 streams p99 ${busy.toFixed(2)} ms, ${steps} steps`);
}
differences.sort((a, b) => a - b);
const median = differences[Math.floor(differences.length / 2)];
const spread = `${differences[0].toFixed(2)} .. ${differences.at(-1).toFixed(2)}`;
console.log(`difference of p99: median ${median.toFixed(2)} ms (${spread}); the promise is 5 ms`);
await engine.close();
