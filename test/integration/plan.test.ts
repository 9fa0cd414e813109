import { Engine } from '../../lib/index';
import { bundledModel, withEngine } from '../helpers/engine';

it.each([1, 2, 4, 8])('Engine.plan knows the bytes that tp %i loads', async (tensorParallelSize) => {
  const config = { model: bundledModel, maxNumSeqs: 8, kvCacheBytes: 2 ** 26, parallel: { tensorParallelSize } };
  const plan = await Engine.plan(config);
  await withEngine(config, async (engine) => {
    const { ranks } = engine.stats();
    expect(ranks.map((r) => r.weightBytes)).toEqual(plan.ranks.map((r) => r.weightBytes));
    expect(ranks.map((r) => r.kvCacheBytes)).toEqual(plan.ranks.map((r) => r.kvCacheBytes));
  });
  expect(plan.fits).toBe(true);
});
