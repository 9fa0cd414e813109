import { bundledModel, withEngine } from '../helpers/engine';

describe('the time of a step', () => {
  it.each([1, 2])('holds that of ops and that of collectives side by side, on each of %d ranks', async (ranks) => {
    const config = { model: bundledModel, threads: 1, parallel: { tensorParallelSize: ranks } as const };
    await withEngine(config, async (engine) => {
      expect(engine.stats()).toMatchObject({ steps: 0, stepSeconds: 0 });
      await engine.generate({ tokenIds: [7, 8, 9] }, { maxTokens: 32, ignoreEos: true, seed: 1 }).final();
      const stats = engine.stats();
      expect(stats.steps).toBe(32);
      expect(stats.ranks).toHaveLength(ranks);
      for (const { busySeconds, opsSeconds, communicationSeconds } of stats.ranks) {
        expect(opsSeconds).toBeGreaterThan(0);
        expect(communicationSeconds > 0).toBe(ranks > 1);
        expect(opsSeconds + communicationSeconds).toBeLessThan(busySeconds);
        expect(busySeconds).toBeLessThan(stats.stepSeconds);
      }
    });
  });
});
