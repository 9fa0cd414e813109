import type { Engine } from '../../lib/index';
import { bundledModel, eventually, itOnCpu, withEngine } from '../helpers/engine';

const model = bundledModel;
/** Bytes of one block of 16 tokens of the bundled model in bfloat16. */
const BLOCK_BYTES = 8 * 2 * 16 * 4 * 64 * 2;
const ids = (length: number, salt = 0) => Array.from({ length }, (_, i) => 6 + ((i * 31 + salt * 977) % 4000));
const plain = { ignoreEos: true, detokenize: false, temperature: 0 };

function expectAllBlocksBack(engine: Engine): void {
  const { numFreeBlocks, numTotalBlocks, numRunning, numWaiting } = engine.stats();
  expect({ numFreeBlocks, numRunning, numWaiting }).toEqual({
    numFreeBlocks: numTotalBlocks,
    numRunning: 0,
    numWaiting: 0,
  });
}

async function nativeCallbacks(engine: Engine): Promise<number> {
  const metric = await engine.metrics.getSingleMetric('heddle:native_callbacks_total')!.get();
  return metric.values[0]!.value;
}

describe('lengths at the edge', () => {
  it('takes a prompt of one token', async () => {
    await withEngine({ model }, async (engine) => {
      const output = await engine.generate({ tokenIds: [0] }, { ...plain, maxTokens: 4 }).final();
      expect(output.outputs[0]!.tokenIds).toHaveLength(4);
    });
  });

  it('takes a prompt that leaves room for one token, and ends with length', async () => {
    await withEngine({ model, maxModelLen: 256 }, async (engine) => {
      const output = await engine.generate({ tokenIds: ids(255) }, plain).final();
      expect(output.outputs[0]!.tokenIds).toHaveLength(1);
      expect(output.outputs[0]!.finishReason).toBe('length');
    });
  });

  it('refuses a prompt that fills maxModelLen, naming both lengths', async () => {
    await withEngine({ model, maxModelLen: 256 }, async (engine) => {
      const stream = () => engine.generate({ tokenIds: ids(256) }, plain).final();
      await expect((async () => stream())()).rejects.toThrow(/256/);
    });
  });

  it('caps maxTokens at the room left', async () => {
    await withEngine({ model, maxModelLen: 64 }, async (engine) => {
      const output = await engine.generate({ tokenIds: ids(60) }, { ...plain, maxTokens: 1_000_000 }).final();
      expect(output.outputs[0]!.tokenIds).toHaveLength(4);
    });
  });
});

describe('a pool that holds eight of two hundred requests', () => {
  itOnCpu('finishes all of them, oldest first, with what each would get alone', async () => {
    // 48 tokens each: three blocks; eight of them, and the null block.
    const kvCacheBytes = (8 * 3 + 1) * BLOCK_BYTES;
    const config = { model, kvCacheBytes, maxModelLen: 64, maxNumSeqs: 32, maxNumBatchedTokens: 64 };
    await withEngine(config, async (engine) => {
      const finished: number[] = [];
      const outputs = await Promise.all(
        Array.from({ length: 200 }, async (_, i) => {
          const output = await engine.generate({ tokenIds: ids(8, i % 20) }, { ...plain, maxTokens: 40 }).final();
          finished.push(i);
          return output;
        }),
      );
      expect(outputs.every((output) => output.outputs[0]!.tokenIds.length === 40)).toBe(true);
      // Requests with the same prompt get the same tokens, preempted or not.
      for (let i = 20; i < 200; i++) {
        expect([...outputs[i]!.outputs[0]!.tokenIds]).toEqual([...outputs[i % 20]!.outputs[0]!.tokenIds]);
      }
      // Age decides: nobody ends much earlier than those before it.
      const displacement = finished.map((request, place) => Math.abs(request - place));
      expect(Math.max(...displacement)).toBeLessThanOrEqual(32);
      expect(engine.stats().numPreemptions).toBeGreaterThan(0);
      expectAllBlocksBack(engine);
    });
  });
});

describe('64 concurrent streams with a shared prefix of 200 tokens', () => {
  it('count prefix hits, give all blocks back, and call into JavaScript at most once a step', async () => {
    const config = { model, maxNumSeqs: 64, kvCacheBytes: 256 * 2 ** 20 };
    await withEngine(config, async (engine) => {
      const shared = ids(200);
      await engine.generate({ tokenIds: shared }, { ...plain, maxTokens: 1 }).final();
      const before = { ...engine.stats(), callbacks: await nativeCallbacks(engine) };
      await Promise.all(
        Array.from({ length: 64 }, async (_, i) => {
          let tokens = 0;
          const tokenIds = [...shared, ...ids(5 + i, i + 1)];
          for await (const delta of engine.generate({ tokenIds }, { ...plain, maxTokens: 32 })) {
            tokens += delta.tokenIds.length;
          }
          expect(tokens).toBe(32);
        }),
      );
      const after = engine.stats();
      // Twelve full blocks of sixteen, for each.
      expect(after.prefixCacheHits - before.prefixCacheHits).toBe(64 * 192);
      const callbacks = (await nativeCallbacks(engine)) - before.callbacks;
      expect(callbacks).toBeGreaterThan(0);
      expect(callbacks).toBeLessThanOrEqual(after.steps - before.steps);
      expectAllBlocksBack(engine);
    });
  });
});

describe('more ranks than cores', () => {
  itOnCpu('tp 8 gives what tp 1 gives', async () => {
    const run = (tensorParallelSize: number) =>
      withEngine({ model, threads: 1, parallel: { tensorParallelSize } }, async (engine) => {
        const output = await engine.generate({ tokenIds: ids(100) }, { ...plain, maxTokens: 32 }).final();
        return [...output.outputs[0]!.tokenIds];
      });
    expect(await run(8)).toEqual(await run(1));
  });
});

describe('a slow consumer', () => {
  it('pauses its own request and no other', async () => {
    const config = { model, maxModelLen: 2048, maxNumSeqs: 4, kvCacheBytes: 64 * 2 ** 20 };
    await withEngine(config, async (engine) => {
      const slow = engine.generate({ tokenIds: ids(4) }, { ...plain, maxTokens: 2000 });
      const iterator = slow[Symbol.asyncIterator]();
      await iterator.next();
      await eventually(() => engine.stats().generatedTokens > 1000, 'the slow request fills its window', 30_000);
      const fast = await engine.generate({ tokenIds: ids(5) }, { ...plain, maxTokens: 300 }).final();
      expect(fast.outputs[0]!.tokenIds).toHaveLength(300);
      const paused = engine.stats().generatedTokens;
      expect(paused).toBeLessThan(1000 + 300 + 200);
      let rest = 0;
      for (let item = await iterator.next(); !item.done; item = await iterator.next()) {
        rest += item.value.tokenIds.length;
      }
      expect(rest).toBeGreaterThan(1990);
      expectAllBlocksBack(engine);
    });
  });
});

describe('n sequences of one prompt', () => {
  const params = { n: 4, seed: 11, maxTokens: 12, ignoreEos: true };
  const textsOf = async (engine: Engine): Promise<string[]> =>
    (await engine.generate({ tokenIds: ids(70) }, params).final()).outputs.map((output) => output.text);

  it('share the prompt and differ by their seed', async () => {
    await withEngine({ model }, async (engine) => {
      expect(new Set(await textsOf(engine)).size).toBeGreaterThan(1);
      expectAllBlocksBack(engine);
    });
  });

  itOnCpu('are the same again, the prompt cached or not', async () => {
    await withEngine({ model }, async (engine) => {
      expect(await textsOf(engine)).toEqual(await textsOf(engine));
    });
  });
});

describe('priorities', () => {
  it('let an urgent request overtake those that wait', async () => {
    const config = { model, schedulingPolicy: 'priority' as const, maxNumSeqs: 1 };
    await withEngine(config, async (engine) => {
      const order: string[] = [];
      const run = async (name: string, priority: number) => {
        await engine.generate({ tokenIds: ids(20, priority) }, { ...plain, maxTokens: 30 }, { priority }).final();
        order.push(name);
      };
      await Promise.all([run('first', 5), run('patient', 5), run('urgent', 0)]);
      expect(order.indexOf('urgent')).toBeLessThan(order.indexOf('patient'));
    });
  });
});

describe('a bounded queue', () => {
  it('refuses what does not fit with QueueFullError and finishes the rest', async () => {
    await withEngine({ model, maxNumSeqs: 1, maxNumWaiting: 2 }, async (engine) => {
      const results = await Promise.allSettled(
        Array.from({ length: 8 }, () => engine.generate({ tokenIds: ids(4) }, { ...plain, maxTokens: 50 }).final()),
      );
      const refused = results.filter((r) => r.status === 'rejected').map((r) => (r.reason as { code: string }).code);
      expect(refused.length).toBeGreaterThan(0);
      expect(new Set(refused)).toEqual(new Set(['ERR_QUEUE_FULL']));
      expect(results.length - refused.length).toBeGreaterThanOrEqual(2);
      expectAllBlocksBack(engine);
    });
  });
});
