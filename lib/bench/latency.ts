/**
 * How fast a few sequences, begun together, get their tokens.
 *
 * @module
 */
import type { EngineStats, MemoryPlan } from '../../types/outputs';
import type { Figures } from './legend';
import { median, percentile } from './statistics';
import { stepTimeBetween } from './step-time';
import {
  syntheticPrompt,
  timeRequest,
  timesPerOutputToken,
  timeToFirstToken,
  type MeasuredEngine,
} from './timed-request';

/** Sequences that begin together, and how long they are. */
export interface LatencyWorkload {
  readonly promptTokens: number;
  /** Generated tokens of each, at least 2. */
  readonly maxTokens: number;
  readonly sequences: number;
}

/** Decoding is what happens from the moment when the last sequence has its first token. */
export const LATENCY_LEGEND = {
  prefill_tok_s: {
    label: 'prefill, tok/s',
    meaning: 'prompt tokens of all sequences, over the time until the last one has its first token',
  },
  decode_tok_s: {
    label: 'decode, tok/s',
    meaning: 'tokens generated after that moment, over the time from there to the end',
  },
  ttft_ms: { label: 'time to first token, ms', meaning: 'from the request; median of the sequences' },
  tpot_ms_median: {
    label: 'time per output token, ms',
    meaning: 'between two tokens of a sequence while all decode, as the caller sees them; median',
  },
  tpot_ms_p99: { label: '  99th percentile', meaning: 'of the time per output token' },
  step_us: { label: 'decode step, µs', meaning: 'mean time of a step, from scheduling to the text' },
  ops_us: { label: '  in ops', meaning: "of it, in the model's operations and in sampling (rank 0)" },
  communication_us: {
    label: '  in collectives',
    meaning: 'of it, in collectives, waiting for other ranks included (rank 0)',
  },
  overhead_us: { label: '  engine overhead', meaning: "what is left of it: the engine's own" },
  weight_bytes: {
    label: 'weights, read a step',
    meaning: 'weights of all ranks; a step reads them once, but for an embedding of its own',
  },
  kv_bytes: {
    label: 'KV cache, read a step',
    meaning: 'KV cache of all ranks that a step reads half-way through decoding, but for sliding windows',
  },
  read_gb_s: { label: 'read, GB/s', meaning: 'these bytes together, over the time of a decode step' },
} as const;

/** Generates from all prompts at once. Repetitions differ in `salt`. */
export async function measureLatency(
  engine: MeasuredEngine,
  { promptTokens, maxTokens, sequences }: LatencyWorkload,
  { kvCacheBytesPerToken }: Pick<MemoryPlan, 'kvCacheBytesPerToken'>,
  salt: number,
): Promise<Figures<typeof LATENCY_LEGEND>> {
  const look = (): Look => ({ time: performance.now(), stats: engine.stats() });
  const start = look();
  // Of the sequence that comes to it last: others generate while it waits, and that is no time of decoding alone.
  let first = start;
  const requests = await Promise.all(
    Array.from({ length: sequences }, (_, i) =>
      timeRequest(engine, { prompt: syntheticPrompt(promptTokens, salt + i), maxTokens }, () => (first = look())),
    ),
  );
  const end = look();
  const lastFirstToken = Math.max(...requests.map(({ tokens }) => tokens[0] ?? NaN));
  const perOutputToken = requests.flatMap((request) => timesPerOutputToken(request, lastFirstToken));
  const step = stepTimeBetween(first.stats, end.stats);
  const weightBytes = end.stats.ranks.reduce((sum, rank) => sum + rank.weightBytes, 0);
  const kvBytes = kvCacheBytesPerToken * sequences * (promptTokens + maxTokens / 2);
  return {
    prefill_tok_s: (1e3 * sequences * promptTokens) / (first.time - start.time),
    decode_tok_s: (1e3 * (end.stats.generatedTokens - first.stats.generatedTokens)) / (end.time - first.time),
    ttft_ms: median(requests.map(timeToFirstToken)),
    tpot_ms_median: median(perOutputToken),
    tpot_ms_p99: percentile(perOutputToken, 0.99),
    step_us: step.total,
    ops_us: step.ops,
    communication_us: step.communication,
    overhead_us: step.overhead,
    weight_bytes: weightBytes,
    kv_bytes: kvBytes,
    read_gb_s: (weightBytes + kvBytes) / step.total / 1e3,
  };
}

/** How far the engine has come at a time in milliseconds. */
interface Look {
  readonly time: number;
  readonly stats: EngineStats;
}
