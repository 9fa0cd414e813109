// One model over several ranks. Each rank holds a part of every layer: some of the heads, some of the rows and columns.
// The sums that join the parts are taken in a fixed order, so the tokens do not depend on the number of ranks.
import { fileURLToPath } from 'node:url';

import { Engine } from 'heddle';

const model = fileURLToPath(new URL('models/tiny-lexicon', import.meta.url));
const prompt = 'It is a truth universally acknowledged, that';

// 1. What would it take? A plan reads config.json and loads nothing.
for (const tensorParallelSize of [1, 2, 4]) {
  const { ranks } = await Engine.plan({ model, parallel: { tensorParallelSize } });
  const mebibytes = ranks.map(({ weightBytes }) => (weightBytes / 2 ** 20).toFixed(1));
  console.log(`tp ${tensorParallelSize}: weights of each rank in MiB: ${mebibytes.join(', ')}`);
}

// 2. The same request on 1, 2 and 4 ranks. Only the configuration differs.
const results = [];
for (const tensorParallelSize of [1, 2, 4]) {
  const engine = await Engine.create({ model, parallel: { tensorParallelSize } });
  const { outputs } = await engine.generate(prompt, { maxTokens: 48, seed: 3 }).final();
  results.push(outputs[0]);

  // 3. What each rank did.
  const shares = engine.stats().ranks.map(({ rank, numHeads, numKVHeads }) => `rank ${rank} ${numHeads}/${numKVHeads}`);
  console.log(`tp ${tensorParallelSize}: heads/KV heads of ${shares.join(', ')}`);
  await engine.close();
}

console.log(`\n${prompt}${results[0].text}\n`);

// 4. Not nearly the same: the same, to the last bit of every log-probability.
const same = results.every(
  ({ tokenIds, cumulativeLogprob }) =>
    cumulativeLogprob === results[0].cumulativeLogprob && tokenIds.join() === results[0].tokenIds.join(),
);
console.log(same ? 'tp 1, 2 and 4 gave the same tokens' : 'tp 1, 2 and 4 DIFFER');
process.exitCode = same ? 0 : 1;
