import path from 'node:path';

import { bundledModel, withEngine } from '../helpers/engine';
import { evalChatNll, greedyAgreement, readGolden, teacherForcedError, TOLERANCE } from '../helpers/golden';
import { describeWithShared } from '../helpers/shared-data';

for (const name of ['tiny-lexicon', 'tiny-lexicon-2of4', 'tiny-lexicon-draft']) {
  describeWithShared(`${name} agrees with transformers`, `models/${name}`, (model) => {
    const golden = readGolden(model);
    const ranks = name === 'tiny-lexicon-draft' ? [1, 2] : [1, 2, 4]; // the draft has two heads

    for (const tensorParallelSize of ranks) {
      it(`in float32, tp ${tensorParallelSize}: log-probabilities and greedy ids`, async () => {
        const parallel = { tensorParallelSize };
        await withEngine({ model, dtype: 'float32', parallel, threads: 1, maxLogprobs: -1 }, async (engine) => {
          expect(await teacherForcedError(engine, golden)).toBeLessThan(TOLERANCE);
          const { mismatches } = await greedyAgreement(engine, golden);
          expect(mismatches).toEqual([]);
        });
      });
    }

    it('in bfloat16: mean loss on the evaluation set within 0.5 %', async () => {
      await withEngine({ model, dtype: 'bfloat16', maxNumSeqs: 32 }, async (engine) => {
        const nll = await evalChatNll(engine);
        expect(Math.abs(nll / golden.eval_chat_nll! - 1)).toBeLessThan(0.005);
      });
    });

    it('in bfloat16 with an int8 KV cache: mean loss on the evaluation set within 0.5 %', async () => {
      await withEngine({ model, dtype: 'bfloat16', kvCacheDtype: 'int8', maxNumSeqs: 32 }, async (engine) => {
        const nll = await evalChatNll(engine);
        expect(Math.abs(nll / golden.eval_chat_nll! - 1)).toBeLessThan(0.005);
      });
    });
  });
}

describe('the bundled model', () => {
  const golden = readGolden(bundledModel);

  it('writes the text that transformers wrote', async () => {
    await withEngine({ model: path.resolve(bundledModel), dtype: 'float32' }, async (engine) => {
      const texts = await Promise.all(
        golden.prompts.map((tokenIds, p) =>
          engine
            .generate(
              { tokenIds },
              { maxTokens: golden.greedy[p]!.length, temperature: 0, ignoreEos: true, skipSpecialTokens: false },
            )
            .text(),
        ),
      );
      expect(texts).toEqual(golden.text);
    });
  });
});
