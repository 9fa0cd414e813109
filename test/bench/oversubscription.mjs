// Eight ranks beside one, in turns, on the bundled model: `npm run bench:oversubscription`.
//
// Each round times one prompt of 256 tokens and 64 generated ones on either engine; prints the median of the ratios.
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { Engine } from 'heddle';

const ROUNDS = Number(process.argv[2] ?? 9);
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const model = path.join(root, 'examples/models/tiny-lexicon');
const tokenIds = Array.from({ length: 256 }, (_, i) => 6 + ((i * 31) % 4000));

const open = (tensorParallelSize) =>
  Engine.create({ model, threads: 1, enablePrefixCaching: false, parallel: { tensorParallelSize } });
const engines = [await open(1), await open(8)];

async function seconds(engine) {
  const start = performance.now();
  await engine.generate({ tokenIds }, { maxTokens: 64, temperature: 0, ignoreEos: true }).final();
  return (performance.now() - start) / 1e3;
}

for (const engine of engines) await seconds(engine);
const ratios = [];
for (let round = 0; round < ROUNDS; round++) {
  const [one, eight] = [await seconds(engines[0]), await seconds(engines[1])];
  ratios.push(eight / one);
  console.log(
    `round ${round}: tp 1 ${one.toFixed(3)} s, tp 8 ${eight.toFixed(3)} s, ratio ${(eight / one).toFixed(2)}`,
  );
}
ratios.sort((a, b) => a - b);
const median = ratios[Math.floor(ratios.length / 2)];
console.log(
  `tp 8 / tp 1: median ${median.toFixed(2)} (${ratios[0].toFixed(2)} .. ${ratios.at(-1).toFixed(2)}); the promise is 4`,
);
for (const engine of engines) await engine.close();
