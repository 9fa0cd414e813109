/**
 * The same request gives the same bits, whatever runs beside it and however the work is cut. The log-probabilities of
 * the whole vocabulary stand for the logits: they are one subtraction away from them.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import type { Engine } from '../../lib/index';
import type { GenerationOutput, SamplingParams } from '../../types/index';
import { bundledModel, fingerprint, itOnCpu, withEngine } from '../helpers/engine';

const model = bundledModel;
const prompt = (length: number, salt: number) =>
  Array.from({ length }, (_, i) => 6 + ((i * 7919 + salt * 104_729) % 4000));

const PROBE: SamplingParams = {
  maxTokens: 6,
  seed: 7,
  logprobs: -1,
  promptLogprobs: -1,
  ignoreEos: true,
  detokenize: false,
};

/** The probe among `batch - 1` other requests of assorted lengths, all under way at once. */
async function probe(engine: Engine, batch: number): Promise<GenerationOutput> {
  const others = Array.from({ length: batch - 1 }, (_, i) =>
    engine
      .generate({ tokenIds: prompt(3 + ((i * 37) % 90), i + 2) }, { maxTokens: 12, ignoreEos: true, detokenize: false })
      .final(),
  );
  const output = await engine.generate({ tokenIds: prompt(41, 1) }, PROBE).final();
  await Promise.all(others);
  return output;
}

describe.each(['float32', 'bfloat16'] as const)('%s logits are the same to the bit', (dtype) => {
  let expected: string;

  beforeAll(async () => {
    const config = { model, dtype, threads: 1, maxNumBatchedTokens: 512, maxLogprobs: -1 };
    expected = await withEngine(config, async (engine) => fingerprint(await probe(engine, 1)));
  });

  for (const tensorParallelSize of [1, 2, 4]) {
    for (const chunk of [16, 512]) {
      for (const threads of [1, 2]) {
        it(`for tp ${tensorParallelSize}, ${chunk} tokens a step, ${threads} threads a rank, batches of 1, 7 and 32`, async () => {
          const config = {
            model,
            dtype,
            maxLogprobs: -1,
            threads,
            maxNumSeqs: Math.min(32, chunk),
            maxNumBatchedTokens: chunk,
            parallel: { tensorParallelSize },
          };
          await withEngine(config, async (engine) => {
            for (const batch of [1, 7, 32]) {
              expect({ batch, bits: fingerprint(await probe(engine, batch)) }).toEqual({ batch, bits: expected });
            }
          });
        });
      }
    }
  }
});

describe('an int8 KV cache', () => {
  const config = { model, dtype: 'bfloat16', kvCacheDtype: 'int8', maxLogprobs: -1 } as const;

  itOnCpu('gives the same bits for every number of ranks, chunk, number of threads and batch', async () => {
    const alone = async (engine: Engine) => fingerprint(await probe(engine, 1));
    const expected = await withEngine({ ...config, threads: 1 }, alone);
    expect(await withEngine({ ...config, kvCacheDtype: 'auto' }, alone)).not.toBe(expected);
    for (const tensorParallelSize of [1, 2, 4]) {
      for (const [maxNumBatchedTokens, threads] of [
        [16, 2],
        [512, 1],
      ] as const) {
        const cut = { maxNumBatchedTokens, threads, parallel: { tensorParallelSize } };
        await withEngine({ ...config, ...cut }, async (engine) => {
          for (const batch of [1, 7]) {
            const bits = fingerprint(await probe(engine, batch));
            expect({ ...cut, batch, bits }).toEqual({ ...cut, batch, bits: expected });
          }
        });
      }
    }
  });

  itOnCpu('gives a prefix-cache hit the same bits', async () => {
    const params: SamplingParams = { maxTokens: 40, seed: 3, logprobs: -1, ignoreEos: true, detokenize: false };
    const run = (engine: Engine) => engine.generate({ tokenIds: prompt(60, 5) }, params).final();
    const cold = await withEngine({ ...config, enablePrefixCaching: false }, run);
    await withEngine(config, async (engine) => {
      await run(engine);
      const warm = await run(engine);
      expect(warm.usage.cachedTokens).toBe(48);
      expect(fingerprint(warm)).toBe(fingerprint(cold));
    });
  });
});

describe('a model whose vocabulary and ffn divide by no number of ranks', () => {
  const uneven = mkdtempSync(path.join(tmpdir(), 'heddle-uneven-'));

  beforeAll(() => {
    const config = {
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      hidden_act: 'silu',
      hidden_size: 104,
      intermediate_size: 333,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      head_dim: 26,
      vocab_size: 4099,
      max_position_embeddings: 256,
      rms_norm_eps: 1e-5,
      torch_dtype: 'float32',
    };
    writeFileSync(path.join(uneven, 'config.json'), JSON.stringify(config));
  });
  afterAll(() => rmSync(uneven, { recursive: true }));

  it.each(['float32', 'bfloat16'] as const)('gives the same %s bits for tp 1, 2 and 4', async (dtype) => {
    const bits = [];
    for (const tensorParallelSize of [1, 2, 4]) {
      const parallel = { tensorParallelSize };
      const config = { model: uneven, loadFormat: 'dummy' as const, dtype, threads: 1, maxLogprobs: -1, parallel };
      bits.push(await withEngine(config, async (engine) => fingerprint(await probe(engine, 7))));
    }
    expect(bits).toEqual([bits[0], bits[0], bits[0]]);
  });
});

it('a prefix-cache hit and a preemption leave every bit of the output alone', async () => {
  const params: SamplingParams = { maxTokens: 40, seed: 3, logprobs: -1, ignoreEos: true, detokenize: false };
  const run = (engine: Engine) => engine.generate({ tokenIds: prompt(60, 5) }, params).final();
  const expected = await withEngine({ model, maxLogprobs: -1, enablePrefixCaching: false }, async (engine) =>
    fingerprint(await run(engine)),
  );
  await withEngine({ model, maxLogprobs: -1 }, async (engine) => {
    await run(engine);
    const warm = await run(engine);
    expect(warm.usage.cachedTokens).toBe(48);
    expect(fingerprint(warm)).toBe(expected);
  });
  // Room for about three such sequences: the youngest are preempted again and again. A block of 16 tokens takes
  // 8 layers x 2 x 16 x 4 heads x 64 x 2 bytes.
  const kvCacheBytes = 22 * (8 * 2 * 16 * 4 * 64 * 2);
  await withEngine(
    { model, kvCacheBytes, maxModelLen: 128, maxLogprobs: -1, enablePrefixCaching: false },
    async (engine) => {
      const outputs = await Promise.all(Array.from({ length: 6 }, () => run(engine)));
      expect(engine.stats().numPreemptions).toBeGreaterThan(0);
      expect(new Set(outputs.map(fingerprint))).toEqual(new Set([expected]));
    },
  );
});
