import path from 'node:path';

import type { EngineConfig } from '../../types/index';
import { withEngine } from '../helpers/engine';
import { greedyAgreement, readGolden, teacherForcedError, TOLERANCE } from '../helpers/golden';
import { describeWithShared } from '../helpers/shared-data';

/** Attention heads bound the ranks: llama-bias-tied has four, the others eight. */
const CASES = ['llama', 'llama3-rope', 'llama-bias-tied', 'mistral', 'qwen2', 'qwen3', 'gemma2', 'gemma3', 'phi3'];
const RANKS = [1, 2, 4];
const CHUNKS: [string, Partial<EngineConfig>][] = [
  ['whole prompts', { maxNumBatchedTokens: 512 }],
  ['chunks of 16', { maxNumBatchedTokens: 16 }],
];

describeWithShared('float32 agrees with transformers', 'goldens', (folder) => {
  for (const name of CASES) {
    for (const tensorParallelSize of RANKS) {
      for (const [chunking, chunk] of CHUNKS) {
        it(`${name}, tp ${tensorParallelSize}, ${chunking}, prefix cache cold and warm`, async () => {
          const model = path.join(folder, name);
          const golden = readGolden(model);
          const parallel = { tensorParallelSize };
          const config = { model, dtype: 'float32' as const, parallel, threads: 1, maxLogprobs: -1, ...chunk };
          await withEngine(config, async (engine) => {
            expect(await teacherForcedError(engine, golden)).toBeLessThan(TOLERANCE);
            for (const cache of ['cold', 'warm']) {
              const { mismatches, error } = await greedyAgreement(engine, golden);
              expect({ cache, mismatches }).toEqual({ cache, mismatches: [] });
              expect(error).toBeLessThan(TOLERANCE);
            }
            expect(engine.stats().prefixCacheHits).toBeGreaterThan(0);
          });
        });
      }
    }
  }

  for (const name of ['mixtral', 'deepseek-v3']) {
    it(`refuses ${name} by name until it exists`, async () => {
      await expect(withEngine({ model: path.join(folder, name) }, async () => undefined)).rejects.toMatchObject({
        code: 'ERR_UNSUPPORTED_MODEL',
      });
    });
  }
});
