/**
 * The loss of a checkpoint on sequences of token ids, by an engine that computes it as it would serve it.
 *
 * @module
 */
import { Engine } from '../engine';

/** Sequences that are computed at once. */
const CONCURRENCY = 8;

/** Mean loss in nats a predicted token; the first of each sequence is not predicted. */
export async function evaluateLoss(
  model: string,
  sequences: readonly Int32Array[],
  signal: AbortSignal | null,
): Promise<number> {
  const maxModelLen = Math.max(...sequences.map(({ length }) => length)) + 1;
  const engine = await Engine.create({ model, maxModelLen, maxNumSeqs: CONCURRENCY, enablePrefixCaching: false });
  try {
    let sum = 0;
    let count = 0;
    for (let begin = 0; begin < sequences.length; begin += CONCURRENCY) {
      const outputs = sequences.slice(begin, begin + CONCURRENCY).map((tokenIds) => {
        const params = { maxTokens: 1, temperature: 0, promptLogprobs: 0, detokenize: false };
        return engine.generate({ tokenIds }, params, { signal: signal ?? undefined }).final();
      });
      for (const { promptLogprobs } of await Promise.all(outputs)) {
        for (const logprob of promptLogprobs!.logprobs) sum -= logprob;
        count += promptLogprobs!.logprobs.length;
      }
    }
    return sum / count;
  } finally {
    await engine.close();
  }
}
