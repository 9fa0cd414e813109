import { readdirSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';

import { bundledModel, eventually, withEngine } from '../helpers/engine';

const model = bundledModel;
const ids = (length: number, salt = 0) => Array.from({ length }, (_, i) => 6 + ((i * 31 + salt * 977) % 4000));
const plain = { ignoreEos: true, temperature: 0 };

/** A small generator of repeatable random numbers in [0, 1). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** What a leak would add to: handles of the event loop, file descriptors, threads. */
function resources() {
  const handles = process.getActiveResourcesInfo().filter((name) => name !== 'Timeout' && name !== 'Immediate');
  const onLinux = process.platform === 'linux';
  return {
    handles: handles.sort(),
    descriptors: onLinux ? readdirSync('/proc/self/fd').length : 0,
    threads: onLinux ? readdirSync('/proc/self/task').length : 0,
  };
}

describe('aborting', () => {
  it('carries what was generated in final()', async () => {
    await withEngine({ model }, async (engine) => {
      const stream = engine.generate({ tokenIds: ids(10) }, { ...plain, maxTokens: 1500 });
      let seen = 0;
      for await (const delta of stream) {
        seen += delta.tokenIds.length;
        if (seen >= 5 && !delta.finishReason) stream.abort();
      }
      const output = await stream.final();
      expect(output.outputs[0]!.finishReason).toBe('abort');
      expect(output.outputs[0]!.tokenIds.length).toBeGreaterThanOrEqual(5);
      expect(output.outputs[0]!.tokenIds.length).toBeLessThan(1500);
      expect(output.usage.completionTokens).toBe(output.outputs[0]!.tokenIds.length);
    });
  });

  it('by signal rejects with an AbortError that carries the output', async () => {
    await withEngine({ model }, async (engine) => {
      const controller = new AbortController();
      const stream = engine.generate(
        { tokenIds: ids(10) },
        { ...plain, maxTokens: 1500 },
        { signal: controller.signal },
      );
      const iterate = async () => {
        for await (const _ of stream) controller.abort();
      };
      await expect(iterate()).rejects.toMatchObject({ name: 'AbortError', code: 'ERR_REQUEST_ABORTED' });
      await expect(stream.final()).rejects.toMatchObject({ output: { outputs: [{ finishReason: 'abort' }] } });
    });
  });

  it('in the middle of a long prompt takes effect within a step', async () => {
    await withEngine({ model, maxNumBatchedTokens: 16 }, async (engine) => {
      const stream = engine.generate({ tokenIds: ids(1500) }, plain);
      await eventually(() => engine.stats().steps > 3, 'the prompt is under way');
      stream.abort();
      await stream.final();
      expect(engine.stats().steps).toBeLessThan(1500 / 16);
      expect(engine.stats().numFreeBlocks).toBe(engine.stats().numTotalBlocks);
    });
  });

  it('2,000 requests at random moments leaks no block, promise or handle', async () => {
    const unhandled: unknown[] = [];
    const onUnhandled = (reason: unknown) => unhandled.push(reason);
    process.on('unhandledRejection', onUnhandled);
    const random = randomFrom(1);
    await withEngine({ model }, (engine) => engine.generate('Once', { maxTokens: 2 }).final()); // starts thread pools
    const before = resources();
    await withEngine({ model, maxNumSeqs: 32, maxNumBatchedTokens: 64 }, async (engine) => {
      const one = async (i: number) => {
        const controller = new AbortController();
        const tokenIds = ids(1 + Math.floor(random() * 100), i);
        const options = i % 2 === 0 ? { signal: controller.signal } : {};
        const stream = engine.generate({ tokenIds }, { maxTokens: 200, n: 1 + (i % 3), ignoreEos: true }, options);
        const abort = () => (i % 2 === 0 ? controller.abort() : stream.abort());
        const delay = random() * 40;
        if (delay < 2) abort();
        else setTimeout(abort, delay);
        if (i % 5 === 0) {
          try {
            for await (const _ of stream) if (random() < 0.02) break;
          } catch (error) {
            expect((error as Error).name).toBe('AbortError');
          }
        }
        await stream.final().then(
          (output) =>
            expect(output.outputs.every((o) => o.finishReason === 'abort' || o.finishReason === 'length')).toBe(true),
          (error: unknown) => expect((error as Error).name).toBe('AbortError'),
        );
      };
      for (let wave = 0; wave < 20; wave++) {
        await Promise.all(Array.from({ length: 100 }, (_, i) => one(wave * 100 + i)));
      }
      const { numFreeBlocks, numTotalBlocks, numRunning, numWaiting } = engine.stats();
      expect({ numFreeBlocks, numRunning, numWaiting }).toEqual({
        numFreeBlocks: numTotalBlocks,
        numRunning: 0,
        numWaiting: 0,
      });
      const control = await engine.generate({ tokenIds: ids(10) }, { ...plain, maxTokens: 5 }).final();
      expect(control.outputs[0]!.tokenIds).toHaveLength(5);
    });
    await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', onUnhandled);
    expect(unhandled).toEqual([]);
    await eventually(() => isDeepStrictEqual(resources(), before), 'handles, descriptors and threads are back');
  }, 300_000);
});
