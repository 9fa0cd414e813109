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

async function createAndClose(kvCacheBytes: number): Promise<void> {
  const engine = await Engine.create({ model: bundledModel, device: 'cuda', kvCacheBytes });
  await engine.generate({ tokenIds: [6, 7, 8] }, { maxTokens: 4, ignoreEos: true }).final();
  await engine.close();
}

describe('the memory of a GPU', () => {
  // What CUDA itself takes of a process stays until it ends.
  beforeAll(() => (testDevice === 'cuda' ? createAndClose(64 * MIB) : undefined));

  itOnGpu('is taken as Engine.plan says, within 2 %', async () => {
    const config = { model: bundledModel, device: 'cuda', kvCacheBytes: 16 * 2 ** 30 } as const;
    const plan = await Engine.plan(config);
    const before = takenBytes();
    const engine = await Engine.create(config);
    const taken = takenBytes() - before;
    await engine.close();
    expect(taken / plan.totalBytes).toBeGreaterThan(0.98);
    expect(taken / plan.totalBytes).toBeLessThan(1.02);
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
