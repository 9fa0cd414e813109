/**
 * What one sequence, or one request, has given so far.
 *
 * @module
 */
import type { CompletionOutput, FinishReason, GenerationDelta, TokenLogprobs } from '../../types/outputs';

/** What the engine says that one sequence gained. */
export interface SequenceDelta {
  readonly index: number;
  readonly tokenIds: Int32Array;
  readonly text: string;
  /** Sum of the log-probabilities of `tokenIds`. */
  readonly logprob: number;
  readonly logprobs?: TokenLogprobs;
  readonly promptLogprobs?: TokenLogprobs;
  readonly numCachedTokens?: number;
  readonly finishReason?: FinishReason;
  readonly stopReason?: string | number;
  /** With `finishReason` `'error'`. */
  readonly error?: { code: string; message: string };
}

/** What a consumer sees of it. */
export function toGenerationDelta(delta: SequenceDelta): GenerationDelta {
  const { index, text, tokenIds, logprobs, finishReason, stopReason } = delta;
  return {
    index,
    text,
    tokenIds,
    ...(logprobs && { logprobs }),
    ...(finishReason !== undefined && { finishReason }),
    ...(stopReason !== undefined && { stopReason }),
  };
}

/** One sequence of a request, growing. */
export class SequenceOutput {
  readonly index: number;
  readonly #tokenIds = new GrowableArray<Int32Array>(Int32Array);
  readonly #logprobs = new LogprobsBuffer();
  #text = '';
  #cumulativeLogprob = 0;
  #finishReason: FinishReason | undefined;
  #stopReason: string | number | undefined;

  constructor(index: number) {
    this.index = index;
  }

  get numTokens(): number {
    return this.#tokenIds.length;
  }

  /** Undefined while the sequence is open. */
  get finishReason(): FinishReason | undefined {
    return this.#finishReason;
  }

  append(delta: SequenceDelta): void {
    this.#text += delta.text;
    this.#tokenIds.append(delta.tokenIds);
    this.#cumulativeLogprob += delta.logprob;
    if (delta.logprobs) this.#logprobs.append(delta.logprobs);
    this.#finishReason = delta.finishReason;
    this.#stopReason = delta.stopReason;
  }

  /** Ends the sequence, if it is open. */
  finish(reason: FinishReason): void {
    this.#finishReason ??= reason;
  }

  /** All so far, as one item of a stream. */
  snapshot(): GenerationDelta {
    return {
      index: this.index,
      text: this.#text,
      tokenIds: this.#tokenIds.copy(),
      ...this.#logprobs.copyIfAny(),
      ...(this.#finishReason !== undefined && { finishReason: this.#finishReason }),
      ...(this.#stopReason !== undefined && { stopReason: this.#stopReason }),
    };
  }

  /** The finished sequence. */
  completion(): CompletionOutput {
    const { index, text, tokenIds, logprobs, stopReason } = this.snapshot();
    return {
      index,
      text,
      tokenIds,
      cumulativeLogprob: this.#cumulativeLogprob,
      ...(logprobs && { logprobs }),
      finishReason: this.#finishReason ?? 'abort',
      ...(stopReason !== undefined && { stopReason }),
    };
  }
}

/** Rows of log-probabilities, growing. */
export class LogprobsBuffer {
  readonly #tokenIds = new GrowableArray<Int32Array>(Int32Array);
  readonly #logprobs = new GrowableArray<Float32Array>(Float32Array);
  readonly #ranks = new GrowableArray<Int32Array>(Int32Array);
  #k: number | undefined;

  append({ k, tokenIds, logprobs, ranks }: TokenLogprobs): void {
    this.#k = k;
    this.#tokenIds.append(tokenIds);
    this.#logprobs.append(logprobs);
    this.#ranks.append(ranks);
  }

  /** `{ logprobs }`, or `{}` when there never were any. */
  copyIfAny(): { logprobs?: TokenLogprobs } {
    if (this.#k === undefined) return {};
    return {
      logprobs: {
        k: this.#k,
        tokenIds: this.#tokenIds.copy(),
        logprobs: this.#logprobs.copy(),
        ranks: this.#ranks.copy(),
      },
    };
  }
}

/** A typed array that grows by doubling. */
class GrowableArray<T extends Int32Array | Float32Array> {
  readonly #make: new (length: number) => T;
  #values: T;
  #length = 0;

  constructor(make: new (length: number) => T) {
    this.#make = make;
    this.#values = new make(0);
  }

  get length(): number {
    return this.#length;
  }

  append(values: T): void {
    const length = this.#length + values.length;
    if (length > this.#values.length) {
      const grown = new this.#make(Math.max(length, 2 * this.#values.length));
      grown.set(this.#values.subarray(0, this.#length));
      this.#values = grown;
    }
    this.#values.set(values, this.#length);
    this.#length = length;
  }

  copy(): T {
    return this.#values.slice(0, this.#length) as T;
  }
}
