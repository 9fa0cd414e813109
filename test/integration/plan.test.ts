import { Engine } from '../../lib/index';
import type { NcclOptions } from '../../types/options';
import { bundledModel, testDevice, withEngine } from '../helpers/engine';

it.each([1, 2, 4, 8])('Engine.plan knows the bytes that tp %i loads', async (tensorParallelSize) => {
  const config = {
    model: bundledModel,
    device: testDevice,
    maxNumSeqs: 8,
    kvCacheBytes: 2 ** 26,
    parallel: { tensorParallelSize },
  };
  const plan = await Engine.plan(config);
  await withEngine(config, async (engine) => {
    const { ranks } = engine.stats();
    expect(ranks.map((r) => r.weightBytes)).toEqual(plan.ranks.map((r) => r.weightBytes));
    expect(ranks.map((r) => r.kvCacheBytes)).toEqual(plan.ranks.map((r) => r.kvCacheBytes));
  });
  expect(plan.fits).toBe(true);
});

it('Engine.plan takes every setting of NCCL, wherever ranks would run', async () => {
  const nccl: Required<NcclOptions> = {
    minCtas: 1,
    maxCtas: 2,
    cgaClusterSize: 0,
    nvlsCtas: 1,
    ctaPolicy: 'zero',
    collnetEnable: false,
    trafficClass: 1,
    channelsPerNetPeer: 1,
    nvlinkCentricScheduling: true,
    netName: 'IB',
    commName: 'ranks',
    algorithm: 'ring',
    protocol: 'simple',
    bufferBytes: 2 ** 22,
    socketInterface: 'eth0',
    ibDevices: 'mlx5',
    p2pLevel: 'sys',
    nvls: false,
    debug: 'warn',
  };
  const plan = Engine.plan({ model: bundledModel, parallel: { tensorParallelSize: 2, nccl } });
  await expect(plan).resolves.toMatchObject({ fits: true });
});
