/** Engines for integration tests, on the device under test. */
import { createHash } from 'node:crypto';
import path from 'node:path';

import { Engine } from '../../lib/index';
import type { EngineConfig, GenerationOutput, TokenLogprobs } from '../../types/index';

export const bundledModel = path.resolve(__dirname, '../../examples/models/tiny-lexicon');

/** Where engines of tests run: `HEDDLE_TEST_DEVICE`, or the CPU. */
export const testDevice = (process.env['HEDDLE_TEST_DEVICE'] ?? 'cpu') as 'cpu' | 'cuda';

/** For what only the CPU promises: bits that depend on neither batch nor chunking. */
export const itOnCpu = testDevice === 'cpu' ? it : it.skip;

/** Small limits, so that engines start fast; a test overrides what it is about. */
const testDefaults: Partial<EngineConfig> = { maxNumSeqs: 8, kvCacheBytes: 64 * 2 ** 20 };

/** How many GPUs ranks are shared out over: `HEDDLE_TEST_GPUS`, or one. */
const numGpus = Number(process.env['HEDDLE_TEST_GPUS'] ?? 1);

/** `config` for the test device, unless it names another. */
export function onTestDevice(config: EngineConfig): EngineConfig {
  const ranks = config.parallel?.tensorParallelSize ?? 1;
  if (testDevice === 'cpu' || ranks === 1) return { device: testDevice, ...config };
  const devices = Array.from({ length: ranks }, (_, rank) => rank % numGpus);
  return { device: testDevice, ...config, parallel: { devices, ...config.parallel } };
}

/** An engine that the test closes. */
export const createEngine = (config: EngineConfig): Promise<Engine> => Engine.create(onTestDevice(config));

/** Calls `use` with an engine that is closed afterwards, whatever happens. */
export async function withEngine<T>(config: EngineConfig, use: (engine: Engine) => Promise<T>): Promise<T> {
  const engine = await createEngine({ ...testDefaults, ...config });
  try {
    return await use(engine);
  } finally {
    await engine.close();
  }
}

/** Row `i` of log-probabilities as a map from token id. */
export function rowOf(logprobs: TokenLogprobs, i: number): Map<number, number> {
  const row = new Map<number, number>();
  const width = logprobs.k + 1;
  for (let j = i * width; j < (i + 1) * width; j++) row.set(logprobs.tokenIds[j]!, logprobs.logprobs[j]!);
  return row;
}

/** Every bit of what a request gave: ids and log-probabilities, of prompt and output. */
export function fingerprint(output: GenerationOutput): string {
  const hash = createHash('sha256');
  const add = (array: ArrayBufferView) => hash.update(Buffer.from(array.buffer, array.byteOffset, array.byteLength));
  for (const logprobs of [output.promptLogprobs, ...output.outputs.map((o) => o.logprobs)]) {
    if (logprobs === undefined) continue;
    add(logprobs.tokenIds);
    add(logprobs.logprobs);
  }
  for (const completion of output.outputs) add(completion.tokenIds);
  return hash.digest('hex');
}

/** Polls until `condition` holds. */
export async function eventually(condition: () => boolean, what: string, timeoutMs = 10_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`did not happen in ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
