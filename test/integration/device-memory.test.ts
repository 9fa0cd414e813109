/** What an engine takes of a GPU's memory, as the driver counts it. */
import { execFileSync } from 'node:child_process';

import { Engine } from '../../lib/index';
import { bundledModel, testDevice } from '../helpers/engine';

const itOnGpu = testDevice === 'cuda' ? it : it.skip;
const MIB = 2 ** 20;

/** Bytes of the first GPU that are taken, by whomever. */
function takenBytes(): number {
  const args = ['--query-gpu=memory.used', '--format=csv,noheader,nounits', '-i', '0'];
  return Number(execFileSync('nvidia-smi', args, { encoding: 'utf8' })) * MIB;
}

/** Makes an engine take what it takes only on demand: graphs, a place for histories, lists of log-probabilities. */
async function takeOnDemand(engine: Engine): Promise<void> {
  const plain = { maxTokens: 8, ignoreEos: true };
  for (const params of [plain, { ...plain, frequencyPenalty: 1, logprobs: 2 }]) {
    await engine.generate({ tokenIds: [6, 7, 8] }, params).final();
  }
}

async function createAndClose(kvCacheBytes: number): Promise<void> {
  const engine = await Engine.create({ model: bundledModel, device: 'cuda', kvCacheBytes });
  await takeOnDemand(engine);
  await engine.close();
}

describe('the memory of a GPU', () => {
  // What CUDA itself takes of a process stays until it ends.
  beforeAll(() => (testDevice === 'cuda' ? createAndClose(256 * MIB) : undefined));

  itOnGpu('is within 2 % of what Engine.plan says, once all of it was taken', async () => {
    const config = { model: bundledModel, device: 'cuda', kvCacheBytes: 16 * 2 ** 30 } as const;
    const { totalBytes } = await Engine.plan(config);
    const before = takenBytes();
    const engine = await Engine.create(config);
    await takeOnDemand(engine);
    const taken = takenBytes() - before;
    await engine.close();
    expect(taken / totalBytes).toBeGreaterThan(0.98);
    expect(taken / totalBytes).toBeLessThan(1.02);
  });

  itOnGpu('is taken as Engine.plan says, most of it at the start', async () => {
    // Of the bundled model: 64 graphs of 112 kernels, histories of 256 sequences of 2,048 tokens, 128 tokens for each.
    const onDemand = 64 * 112 * 3200 + 256 * 2048 * 4 + 256 * 128 * 8;
    // A pool grows by so much at least, and the driver counts all of it.
    const poolStep = 32 * MIB;
    const config = { model: bundledModel, device: 'cuda', kvCacheBytes: 256 * MIB } as const;
    const { totalBytes } = await Engine.plan(config);
    const before = takenBytes();
    const engine = await Engine.create(config);
    const atStart = takenBytes() - before;
    await takeOnDemand(engine);
    const atEnd = takenBytes() - before;
    await engine.close();

    const mib = (bytes: number) => `${(bytes / MIB).toFixed(1)} MiB`;
    const figures =
      `planned ${mib(totalBytes)}, ${mib(onDemand)} of it on demand; ` +
      `taken ${mib(atStart)} at the start, ${mib(atEnd)} at the end`;
    const isAsPlanned = atStart >= 0.98 * (totalBytes - onDemand) && atStart <= atEnd && atEnd <= totalBytes + poolStep;
    expect({ isAsPlanned, figures }).toEqual({ isAsPlanned: true, figures });
  });

  itOnGpu(
    'comes back with close(), a hundred times',
    async () => {
      const before = takenBytes();
      for (let i = 0; i < 100; i++) await createAndClose(256 * MIB);
      expect(Math.abs(takenBytes() - before)).toBeLessThanOrEqual(2 * MIB);
    },
    300_000,
  );
});
