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
  /** The ids behind `text`, and of what is held back of it. */
  tokenIds: Int32Array;
  /** Rows for `tokenIds`, when asked for. */
  logprobs?: TokenLogprobs;
  /** Set on the last item of the sequence. */
  finishReason?: FinishReason;
  /** The stop string or token id that ended it, or `'repetition'`; absent for the model's own end of sequence. */
  stopReason?: string | number;
}

/** One finished sequence. */
export interface CompletionOutput {
  /** Which of the `n` sequences. */
  index: number;
  /** Empty without `detokenize`. */
  text: string;
  /** Generated ids, with the one that ended the sequence. */
  tokenIds: Int32Array;
  /** Sum of the natural log-probabilities of `tokenIds`. */
  cumulativeLogprob: number;
  /** Rows for `tokenIds`, when asked for. */
  logprobs?: TokenLogprobs;
  /** Why it ended. */
  finishReason: FinishReason;
  /** The stop string or token id that ended it, or `'repetition'`; absent for the model's own end of sequence. */
  stopReason?: string | number;
}

/** Tokens that a request took and gave. */
export interface Usage {
  /** Of the prompt, counted once. */
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
  /** The label given, or the one made. */
  requestId: string;
  /** What the model read. Empty when the request ended before its text was tokenised. */
  promptTokenIds: Int32Array;
  /** Rows for the prompt's tokens after the first, when asked for. */
  promptLogprobs?: TokenLogprobs;
  /** One for each of the `n` sequences, by index. */
  outputs: CompletionOutput[];
  /** Tokens taken and given. */
  usage: Usage;
  /** When things happened. */
  timing: RequestTiming;
}

/**
 * A request under way. It can be iterated once, by one consumer; the pace of pulling is the backpressure: a request whose
 * items pile up (1024 tokens) is paused, and only that one, so who begins to iterate goes on or leaves. Leaving the loop
 * aborts the request. `final()` and `text()` may be called with or without iterating, any number of times; without, they
 * take what comes at once.
 *
 * Iteration, `final()` and `text()` reject with the same error when the request fails: `RequestAbortedError` when its
 * signal was aborted, `EngineClosedError`, `EngineFailedError`, `RequestFailedError` when the engine failed at it alone,
 * `InvalidArgumentError` when its own rules come to allow no token, and the like. What was generated is in the error's
 * `output`. No promise of a stream that nobody awaits ends the process.
 */
export interface GenerationStream extends AsyncIterable<GenerationDelta> {
  /** The label given, or the one made. */
  readonly requestId: string;
  /** The finished request. After `abort()`, or after leaving the loop, it carries what was generated. */
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
  /** Sequences being computed. */
  numRunning: number;
  /** Sequences that wait. */
  numWaiting: number;
}

/** Counters and gauges of an engine. */
export interface EngineStats {
  /** Sequences being computed. */
  numRunning: number;
  /** Sequences that wait. */
  numWaiting: number;
  /** KV-cache blocks that nobody uses, cached prefixes included. */
  numFreeBlocks: number;
  /** KV-cache blocks there are. */
  numTotalBlocks: number;
  /** Share of KV-cache blocks in use, 0 to 1. */
  kvCacheUsage: number;
  /** Prompt tokens looked up in the prefix cache, since creation. */
  prefixCacheQueries: number;
  /** Prompt tokens found in the prefix cache, since creation. */
  prefixCacheHits: number;
  /** Sequences that gave up their blocks and started over, since creation. */
  numPreemptions: number;
  /** Prompt tokens of requests that got their first token, since creation. */
  promptTokens: number;
  /** Tokens generated since creation. */
  generatedTokens: number;
  /** Steps of the model since creation. */
  steps: number;
  /**
   * Seconds of all steps together, from scheduling to the text, since creation. What neither ops nor collectives account
   * for is the engine's overhead: `(stepSeconds - opsSeconds - communicationSeconds - deviceWaitSeconds) / steps` of a
   * rank, a step.
   */
  stepSeconds: number;
  /** One entry a rank. */
  ranks: RankStats[];
}

/** What one rank did, since creation. */
export interface RankStats {
  /** From 0. */
  rank: number;
  /** Attention heads that this rank computes. */
  numHeads: number;
  /** Key-value heads that this rank holds. */
  numKVHeads: number;
  /** Bytes of its weights. */
  weightBytes: number;
  /** Whether they came from `packedWeightCache`, with nothing packed. */
  weightsFromCache: boolean;
  /** Bytes of its KV cache. */
  kvCacheBytes: number;
  /** Seconds in model steps. */
  busySeconds: number;
  /** The part of `busySeconds` spent in the model's operations and in sampling: what the processor or the memory limits. */
  opsSeconds: number;
  /** The part of `busySeconds` spent in collectives, waiting included; none of it is in `opsSeconds`. */
  communicationSeconds: number;
  /**
   * The part of `busySeconds` in which the host waited for the GPU; of rank 0, elsewhere and on CPU 0. What it has
   * of `stepSeconds` beyond that is the host's own work: `(stepSeconds - deviceWaitSeconds) / steps` a step.
   */
  deviceWaitSeconds: number;
  /**
   * Seconds from the end of each step on the GPU to the beginning of the next, whether or not there was a request; of
   * rank 0, elsewhere and on CPU 0.
   */
  deviceIdleSeconds: number;
}

/** Bytes an engine would need, before anything loads. */
export interface MemoryPlan {
  /** One entry a rank. */
  ranks: RankMemoryPlan[];
  /** Bytes of all ranks together. */
  totalBytes: number;
  /** Bytes of memory available now. */
  availableBytes: number;
  /** Whether the memory has room for its ranks; of several GPUs, each for its own. */
  fits: boolean;
  /** Tokens that the KV cache holds. */
  kvCacheTokens: number;
  /** Bytes of KV cache that each of them takes, of all ranks together. */
  kvCacheBytesPerToken: number;
  /** Sequences of `maxModelLen` that fit at once. */
  maxConcurrency: number;
  /** The configured one, or the checkpoint's. */
  maxModelLen: number;
}

/** Bytes that one rank would need. */
export interface RankMemoryPlan {
  /** From 0. */
  rank: number;
  /** Bytes of its weights. */
  weightBytes: number;
  /** Bytes of its KV cache. */
  kvCacheBytes: number;
  /**
   * Bytes of activations and scratch of the largest step. On a GPU also what penalties, log-probabilities and graphs of
   * decoding steps may come to need, which is taken only then.
   */
  activationBytes: number;
}
