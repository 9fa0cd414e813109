// 2,000 requests, aborted at random moments in every way there is. Runs in a process of its own, where a rejection that
// nobody handles is fatal; see test/integration/abort.test.ts.
const { resources, settled } = require('./resources.cjs');

const NUM_WAVES = 20;
const WAVE = 100;
const ENDS = new Set(['abort', 'length']);

/** A small generator of repeatable random numbers in [0, 1). */
function randomFrom(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const ids = (length, salt = 0) => Array.from({ length }, (_, i) => 6 + ((i * 31 + salt * 977) % 4000));

/** One request: half are aborted by signal, half by `abort()`, and of some the consumer leaves the loop. */
async function one(engine, i, random) {
  const controller = new AbortController();
  const tokenIds = ids(1 + Math.floor(random() * 100), i);
  const options = i % 2 === 0 ? { signal: controller.signal } : {};
  const stream = engine.generate({ tokenIds }, { maxTokens: 200, n: 1 + (i % 3), ignoreEos: true }, options);
  const abort = () => (i % 2 === 0 ? controller.abort() : stream.abort());
  const delay = random() * 40;
  if (delay < 2) abort();
  else setTimeout(abort, delay);
  try {
    if (i % 5 === 0) {
      for await (const { finishReason } of stream) if (!finishReason && random() < 0.02) break;
    }
    const { outputs } = await stream.final();
    const strange = outputs.find(({ finishReason }) => !ENDS.has(finishReason));
    if (strange) throw new Error(`ended with ${strange.finishReason}`);
  } catch (error) {
    if (error.name !== 'AbortError') throw error;
  }
}

/** On an engine of these options. Resolves to what there was before, and what is left afterwards. */
exports.storm = async (Engine, config) => {
  const limits = { ...config, kvCacheBytes: 64 * 2 ** 20 };
  const random = randomFrom(1);
  const first = await Engine.create(limits); // starts thread pools
  await first.generate('Once', { maxTokens: 2 }).final();
  await first.close();
  const before = resources();
  const engine = await Engine.create({ ...limits, maxNumSeqs: 32, maxNumBatchedTokens: 64 });
  for (let wave = 0; wave < NUM_WAVES; wave++) {
    await Promise.all(Array.from({ length: WAVE }, (_, i) => one(engine, wave * WAVE + i, random)));
  }
  const { numFreeBlocks, numTotalBlocks, numRunning, numWaiting } = engine.stats();
  const control = await engine.generate({ tokenIds: ids(10) }, { maxTokens: 5, ignoreEos: true }).final();
  await engine.close();
  return {
    before,
    after: await settled(resources, before),
    engine: { numUsedBlocks: numTotalBlocks - numFreeBlocks, numRunning, numWaiting },
    controlTokens: control.outputs[0].tokenIds.length,
  };
};
