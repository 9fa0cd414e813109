// Requests that start together, and what they see.
import { stepTimeBetween } from '../../../dist/bench/step-time.js';

/** Measurements before those that count: products are tried out, graphs are captured, JavaScript is compiled. */
export const WARM_UPS = 2;

/**
 * Tokens a second: `prefill` of the prompts until every sequence has its first token, `decode` from then on, `output` over
 * the whole time. Beside them `step`, the time of a step while all sequences decode; null where there was no such step.
 */
export async function measureRequests(engine, { batch, prompt, output }, vocabSize) {
  const params = { maxTokens: output, temperature: 0, ignoreEos: true, detokenize: false };
  let waiting = batch; // for their first token
  let allStarted = NaN;
  let decoding = false;
  let decoded = 0;
  let before = null;
  let after = null;
  const prompts = Array.from({ length: batch }, (_, sequence) => promptOf(sequence, prompt, vocabSize));
  const start = performance.now();
  await Promise.all(
    prompts.map(async (tokenIds) => {
      let started = false;
      let count = 0;
      for await (const delta of engine.generate({ tokenIds }, params)) {
        const numTokens = delta.tokenIds.length;
        if (decoding) decoded += numTokens;
        count += numTokens;
        if (count >= output - 2) after ??= engine.stats();
        if (started || numTokens === 0) continue;
        started = true;
        if (--waiting > 0) continue;
        allStarted = performance.now();
        // Not at once: others of the same step are still to be delivered.
        setImmediate(() => {
          decoding = true;
          before = engine.stats();
        });
      }
    }),
  );
  const end = performance.now();
  return {
    prefill: (batch * prompt * 1000) / (allStarted - start),
    decode: (decoded * 1000) / (end - allStarted),
    output: (batch * output * 1000) / (end - start),
    step: before !== null && after.steps > before.steps ? stepTimeBetween(before, after) : null,
  };
}

/** Ids that differ between sequences and are clear of the special ones at the vocabulary's end. */
function promptOf(sequence, length, vocabSize) {
  return Int32Array.from({ length }, (_, i) => (i * 7919 + sequence * 104729) % (vocabSize - 256));
}
