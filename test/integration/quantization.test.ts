import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { Engine } from '../../lib/index';
import type { EngineConfig } from '../../types/index';
import { bundledModel, fingerprint, itOnCpu, onTestDevice, testDevice, withEngine } from '../helpers/engine';
import { evalChatNll } from '../helpers/golden';
import { storedForms, writeQuantizedCheckpoint } from '../helpers/quantized-checkpoint';
import { runScript } from '../helpers/script';
import { describeWithShared } from '../helpers/shared-data';

const QUANTIZATIONS = ['none', 'int8', 'w8a8', 'llm-int8'] as const;

/** Every bit of the log-probabilities of some prompts, and of greedy tokens after them. */
async function bitsOf(config: EngineConfig): Promise<string[]> {
  return withEngine({ maxLogprobs: -1, ...config }, (engine) =>
    Promise.all(
      [
        [0, 4, 201, 1037, 362],
        Array.from({ length: 61 }, (_, i) => 100 + ((i * 7919) % 3900)),
        Array.from({ length: 300 }, (_, i) => 6 + ((i * 104_729) % 4000)),
      ].map(async (tokenIds) => {
        const params = { maxTokens: 12, temperature: 0, ignoreEos: true, promptLogprobs: 3, logprobs: 3 };
        return fingerprint(await engine.generate({ tokenIds }, params).final());
      }),
    ),
  );
}

describeWithShared('tiny-lexicon-bnb-int8 agrees with bitsandbytes', 'models/tiny-lexicon-bnb-int8', (model) => {
  const loss = (config: Partial<EngineConfig>) =>
    withEngine({ model, dtype: 'float32', maxNumSeqs: 32, ...config }, evalChatNll);

  // The losses of its golden.json.
  it('with its weights widened, or kept and multiplied by float activations', async () => {
    expect(Math.abs((await loss({ quantization: 'none' })) - 1.71374)).toBeLessThan(0.001);
    expect(Math.abs((await loss({ quantization: 'int8' })) - 1.71374)).toBeLessThan(0.001);
  });

  it('as LLM.int8, which is what "auto" takes it for', async () => {
    await withEngine({ model, dtype: 'float32', maxNumSeqs: 32 }, async (engine) => {
      expect(Math.abs((await evalChatNll(engine)) - 1.71453)).toBeLessThan(0.001);
    });
  });
});

describe('a model that is quantized at load', () => {
  itOnCpu.each(QUANTIZATIONS)('gives the same bits on 1, 2 and 4 ranks and any batch: %s', async (quantization) => {
    const config = { model: bundledModel, quantization, threads: 1 };
    const alone = await bitsOf(config);
    expect(await bitsOf({ ...config, maxNumBatchedTokens: 32, threads: 2 })).toEqual(alone);
    for (const tensorParallelSize of [2, 4] as const) {
      expect(await bitsOf({ ...config, parallel: { tensorParallelSize } })).toEqual(alone);
    }
  });

  it.each(QUANTIZATIONS)('takes the bytes that its plan says: %s', async (quantization) => {
    const config = onTestDevice({ model: bundledModel, quantization, kvCacheBytes: 2 ** 24 });
    const plan = await Engine.plan(config);
    await withEngine(config, (engine) => {
      expect(engine.stats().ranks[0]!.weightBytes).toBe(plan.ranks[0]!.weightBytes);
      return Promise.resolve();
    });
  });

  it('takes little more than half of the bytes of 16-bit weights', async () => {
    const bytes = async (quantization: EngineConfig['quantization']) =>
      (await Engine.plan({ model: bundledModel, device: 'cpu', quantization })).ranks[0]!.weightBytes;
    expect((await bytes('int8')) / (await bytes('none'))).toBeLessThan(0.53);
  });
});

describe("bitsandbytes' own kernels", () => {
  const bitsandbytes = { quantization: 'llm-int8', provider: 'bitsandbytes' } as const;

  // In a process of its own, whose variables and libraries are its own.
  it.each(['plan', 'create'])('are refused by Engine.%s where there is no GPU or no library', async (method) => {
    const { stdout } = await runScript(`
      process.env.HEDDLE_BITSANDBYTES_LIBRARY = '/none/libbitsandbytes_cuda130.so';
      const config = { model: alone.model, ...${JSON.stringify(bitsandbytes)} };
      await Engine.${method}(config).catch(({ code, message }) => console.log(code + ': ' + message));`);
    expect(stdout).toMatch(
      /^ERR_INVALID_ARGUMENT: (device 'cuda' needs |provider 'bitsandbytes' needs .*\/none\/libbitsandbytes_cuda130\.so)/,
    );
  });

  const isHere = testDevice === 'cuda' && process.env['HEDDLE_BITSANDBYTES_LIBRARY'] !== undefined;
  const itWithLibrary = isHere ? it : it.skip;
  itWithLibrary('agree with ours', async () => {
    const loss = (config: Partial<EngineConfig>) =>
      withEngine({ model: bundledModel, dtype: 'bfloat16', maxNumSeqs: 32, ...config }, evalChatNll);
    const ours = await loss({ quantization: 'llm-int8' });
    expect(Math.abs((await loss(bitsandbytes)) - ours)).toBeLessThan(0.004);
  });
});

describeWithShared('tiny-lexicon-2of4 without its zeros', 'models/tiny-lexicon-2of4', (model) => {
  itOnCpu.each(['bfloat16', 'float16'] as const)('gives the bits of the dense matrices: %s', async (dtype) => {
    expect(await bitsOf({ model, dtype, sparsity: '2:4' })).toEqual(await bitsOf({ model, dtype }));
  });

  itOnCpu.each(QUANTIZATIONS)('gives the bits of the dense matrices, on 1, 2 and 4 ranks: %s', async (quantization) => {
    const config = { model, quantization, threads: 1 };
    const dense = await bitsOf({ ...config, sparsity: 'none' });
    for (const tensorParallelSize of [1, 2, 4] as const) {
      expect(await bitsOf({ ...config, sparsity: '2:4', parallel: { tensorParallelSize } })).toEqual(dense);
    }
  });

  it('takes the bytes that its plan says', async () => {
    const config = onTestDevice({ model, sparsity: '2:4', quantization: 'int8', kvCacheBytes: 2 ** 24 });
    const plan = await Engine.plan(config);
    await withEngine(config, (engine) => {
      expect(engine.stats().ranks[0]!.weightBytes).toBe(plan.ranks[0]!.weightBytes);
      return Promise.resolve();
    });
  });

  it('is refused where float32 has no kernels for it, and where a matrix is dense', async () => {
    await expect(Engine.create(onTestDevice({ model, dtype: 'float32', sparsity: '2:4' }))).rejects.toThrow(
      'sparsity must be "auto" or "none" where weights are float32, received "2:4"',
    );
    await expect(Engine.create(onTestDevice({ model: bundledModel, sparsity: '2:4' }))).rejects.toThrow(
      /tensor "model\.layers\.0\.self_attn\.q_proj\.weight", row \d+: columns \d+ to \d+ hold \d values other than zero, where 2:4 sparsity allows two/,
    );
  });
});

describeWithShared('a checkpoint of compressed-tensors', 'models/tiny-lexicon-2of4', (source) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'heddle-forms-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  itOnCpu.each(storedForms)('gives the same bits on 1, 2 and 4 ranks, with its zeros and without: %s', async (form) => {
    const model = path.join(folder, form);
    writeQuantizedCheckpoint(source, model, form);
    const asStored = await bitsOf({ model });
    for (const tensorParallelSize of [2, 4] as const) {
      expect(await bitsOf({ model, parallel: { tensorParallelSize }, threads: 1 })).toEqual(asStored);
    }
    expect(await bitsOf({ model, sparsity: 'none' })).toEqual(asStored);
  });
});
