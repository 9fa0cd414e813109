/**
 * What the engine gives back.
 *
 * @module
 */

/** Why a sequence ended. */
export type FinishReason = 'stop' | 'length' | 'abort' | 'error';

/** Log-probabilities of n tokens: the generated ones, or the prompt's after the first. Of the model's own distribution, before penalties, biases and temperature. */
export interface TokenLogprobs {
  /** How many best tokens each row lists beside the chosen one. */
  k: number;
  /** `[n, k + 1]`: the chosen or given token, then the k best. */
  tokenIds: Int32Array;
  /** `[n, k + 1]`, natural logarithms, for `tokenIds`. */
  logprobs: Float32Array;
  /** `[n]`: rank of the chosen token; 1 is the best. */
  ranks: Int32Array;
}

/** One item of a stream: what is new in one sequence since its last item (or all of it, with `outputKind: 'cumulative'`). */
export interface GenerationDelta {
  /** Which of the `n` sequences. */
  index: number;
  /** Whole characters only; empty while a character or a possible stop string is incomplete. */
  text: string;
  tokenIds: Int32Array;
  logprobs?: TokenLogprobs;
  /** Set on the last item of the sequence. */
  finishReason?: FinishReason;
  /** The stop string or token id that ended it, or `'repetition'`; absent for the model's own end of sequence. */
  stopReason?: string | number;
}

/** One finished sequence. */
export interface CompletionOutput {
  index: number;
  text: string;
  tokenIds: Int32Array;
  /** Sum of the natural log-probabilities of `tokenIds`. */
  cumulativeLogprob: number;
  logprobs?: TokenLogprobs;
  finishReason: FinishReason;
  stopReason?: string | number;
}

/** Tokens that a request took and gave. */
export interface Usage {
  promptTokens: number;
  /** Of all sequences together. */
  completionTokens: number;
  /** Prompt tokens that a prefix hit spared. */
  cachedTokens: number;
}

/** When things happened, in milliseconds. */
export interface RequestTiming {
  /** From `generate()` to the first step that worked on it, tokenising included. */
  queueMs: number;
  /** From `generate()` to the first token. */
  timeToFirstTokenMs: number;
  /** From `generate()` to the end. */
  totalMs: number;
}

/** A finished request. */
export interface GenerationOutput {
  requestId: string;
  promptTokenIds: Int32Array;
  /** Rows for the prompt's tokens after the first, when asked for. */
  promptLogprobs?: TokenLogprobs;
  /** One for each of the `n` sequences, by index. */
  outputs: CompletionOutput[];
  usage: Usage;
  timing: RequestTiming;
}

/**
 * A request under way. It can be iterated once, by one consumer; the pace of pulling is the backpressure: a request whose
 * items pile up is paused, and only that one. Leaving the loop aborts it. `final()` and `text()` may be called with or
 * without iterating, any number of times.
 */
export interface GenerationStream extends AsyncIterable<GenerationDelta> {
  readonly requestId: string;
  /** The finished request. After `abort()` it carries what was generated. @throws RequestAbortedError when the signal aborted it. */
  final(): Promise<GenerationOutput>;
  /** Text of the first sequence, complete. */
  text(): Promise<string>;
  /** Ends the request within one step; the stream ends quietly with `finishReason: 'abort'`. Does nothing afterwards. */
  abort(): void;
}

/** Whether the engine makes progress, judged by the age of its last step. */
export interface EngineHealth {
  /** `'idle'` nothing to do; `'ok'` stepping; `'stalled'` work is there and no step ended for longer than any step may take; `'failed'`; `'closed'`. */
  status: 'idle' | 'ok' | 'stalled' | 'failed' | 'closed';
  /** Milliseconds since the last step ended, or since creation. */
  lastStepAgeMs: number;
  numRunning: number;
  numWaiting: number;
}

/** Counters and gauges of an engine. */
export interface EngineStats {
  /** Sequences being computed. */
  numRunning: number;
  /** Sequences that wait. */
  numWaiting: number;
  /** KV-cache blocks that nobody uses, and all there are. */
  numFreeBlocks: number;
  numTotalBlocks: number;
  /** Share of KV-cache blocks in use, 0 to 1. */
  kvCacheUsage: number;
  /** Prompt tokens looked up in the prefix cache, and found. */
  prefixCacheQueries: number;
  prefixCacheHits: number;
  numPreemptions: number;
  /** Totals since creation. */
  promptTokens: number;
  generatedTokens: number;
  steps: number;
  /** One entry a rank. */
  ranks: RankStats[];
}

/** What one rank did, since creation. */
export interface RankStats {
  rank: number;
  /** Attention heads, and key-value heads, that this rank computes. */
  numHeads: number;
  numKVHeads: number;
  weightBytes: number;
  kvCacheBytes: number;
  /** Seconds in model steps, and the part of them spent in collectives, waiting included. */
  busySeconds: number;
  communicationSeconds: number;
}

/** Bytes an engine would need, before anything loads. */
export interface MemoryPlan {
  ranks: RankMemoryPlan[];
  /** Of all ranks together. */
  totalBytes: number;
  /** Memory available now. */
  availableBytes: number;
  fits: boolean;
  /** Tokens that the KV cache holds. */
  kvCacheTokens: number;
  /** Sequences of `maxModelLen` that fit at once. */
  maxConcurrency: number;
  maxModelLen: number;
}

export interface RankMemoryPlan {
  rank: number;
  weightBytes: number;
  kvCacheBytes: number;
  /** Activations and scratch of the largest step. */
  activationBytes: number;
}
