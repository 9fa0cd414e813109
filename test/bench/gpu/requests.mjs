// Requests that start together, and what they see.

/** Measurements before those that count: products are tried out, graphs are captured, JavaScript is compiled. */
export const WARM_UPS = 2;

/**
 * Tokens a second: `prefill` of the prompts until every sequence has its first token, `decode` from then on, `output` over
 * the whole time.
 */
export async function measureRequests(engine, { batch, prompt, output }, vocabSize) {
  const params = { maxTokens: output, temperature: 0, ignoreEos: true, detokenize: false };
  let waiting = batch; // for their first token
  let allStarted = NaN;
  let decoding = false;
  let decoded = 0;
  const start = performance.now();
  await Promise.all(
    Array.from({ length: batch }, async (_, sequence) => {
      let started = false;
      for await (const { tokenIds } of engine.generate({ tokenIds: promptOf(sequence, prompt, vocabSize) }, params)) {
        if (decoding) decoded += tokenIds.length;
        if (started || tokenIds.length === 0) continue;
        started = true;
        if (--waiting > 0) continue;
        allStarted = performance.now();
        // Not at once: others of the same step are still to be delivered.
        setImmediate(() => (decoding = true));
      }
    }),
  );
  const end = performance.now();
  return {
    prefill: (batch * prompt * 1000) / (allStarted - start),
    decode: (decoded * 1000) / (end - allStarted),
    output: (batch * output * 1000) / (end - start),
  };
}

/** Ids that differ between sequences and are clear of the special ones at the vocabulary's end. */
function promptOf(sequence, length, vocabSize) {
  return Int32Array.from({ length }, (_, i) => (i * 7919 + sequence * 104729) % (vocabSize - 256));
}
