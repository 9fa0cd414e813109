import { bundledModel, eventually, withEngine } from '../helpers/engine';
import { runScript } from '../helpers/script';

const model = bundledModel;
const ids = (length: number) => Array.from({ length }, (_, i) => 6 + ((i * 31) % 4000));
const plain = { ignoreEos: true, temperature: 0 };

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
    const { code, signal, stdout, stderr } = await runScript(
      `const { storm } = require('./test/helpers/abort-storm.cjs');
      console.log(JSON.stringify(await storm(Engine, alone)));`,
      240_000,
    );
    expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: '' });
    const { before, after, ...left } = JSON.parse(stdout) as Record<string, unknown>;
    expect(after).toEqual(before);
    expect(left).toEqual({ engine: { numUsedBlocks: 0, numRunning: 0, numWaiting: 0 }, controlTokens: 5 });
  }, 300_000);
});
