/**
 * A request under way, from the caller's side.
 *
 * @module
 */
import { setMaxListeners } from 'node:events';

import type {
  FinishReason,
  GenerationDelta,
  GenerationOutput,
  GenerationStream,
  RequestTiming,
} from '../../types/outputs';
import {
  EngineClosedError,
  errorFromNative,
  InvalidArgumentError,
  RequestAbortedError,
  RequestFailedError,
  withOutput,
  withStack,
  type CallSite,
  type HeddleError,
} from '../errors';
import { offAbort, onAbort } from './abort-signal';
import { DeltaQueue } from './delta-queue';
import { LogprobsBuffer, SequenceOutput, toGenerationDelta, type SequenceDelta } from './sequence-output';

/** What a stream asks of the engine that runs its request. */
export interface StreamHost {
  /** Ends the request within one step; its sequences' last deltas still come. */
  abort(): void;
  /** Says that the consumer took this many tokens. */
  acknowledge(numTokens: number): void;
}

/** What a stream is made for. */
export interface StreamOptions {
  readonly requestId: string;
  readonly n: number;
  readonly outputKind: 'delta' | 'cumulative' | 'final_only';
  readonly signal: AbortSignal | null;
  /** Where the request was made, for errors that come later. */
  readonly site: CallSite;
  /** When the request was made, on the clock of `performance.now()`. */
  readonly createdAt: number;
  /** Called once, when the request is over for whatever reason. The output is null when it could not be put together. */
  readonly onEnd: (stream: RequestStream, output: GenerationOutput | null) => void;
}

/** One item to be: what one sequence gained, or null for all that it has at the time of taking. */
interface Item {
  readonly index: number;
  readonly delta: SequenceDelta | null;
  /** Of this item, to be acknowledged when it is taken. */
  numTokens: number;
}

/**
 * The {@link GenerationStream} of one request: `begin`, `push`, `markStarted` and `fail` are the engine's side, the rest
 * is the caller's. Every promise that it makes is handled, so that none ends the process when nobody awaits it.
 */
export class RequestStream implements GenerationStream {
  readonly requestId: string;
  /** What it was made for. */
  readonly options: StreamOptions;
  readonly #sequences: SequenceOutput[];
  readonly #promptLogprobs = new LogprobsBuffer();
  readonly #queue = new DeltaQueue<Item, GenerationDelta>((item) => this.#take(item));
  readonly #final: Promise<GenerationOutput>;
  #resolveFinal!: (output: GenerationOutput) => void;
  #rejectFinal!: (error: HeddleError) => void;

  #host: StreamHost | null = null;
  #promptTokenIds: Int32Array = new Int32Array(0);
  #numCachedTokens = 0;
  #numUnacknowledged = 0;
  #startedAt: number | undefined;
  #firstTokenAt: number | undefined;
  #endedAt: number | undefined;
  #failure: { code: string; message: string } | undefined;

  /** Who takes items: nobody yet, an iterator, or nobody ever again. */
  #consumer: 'none' | 'iterating' | 'left' = 'none';
  #collecting = false;
  #aborting: 'no' | 'quietly' | 'by signal' = 'no';
  /** Made for the first who asks: most requests are over without anybody having waited for it. */
  #over: AbortController | undefined;
  readonly #onSignal = (): void => this.#abort('by signal');

  constructor(options: StreamOptions) {
    this.options = options;
    this.requestId = options.requestId;
    this.#sequences = Array.from({ length: options.n }, (_, index) => new SequenceOutput(index));
    this.#final = new Promise((resolve, reject) => {
      this.#resolveFinal = resolve;
      this.#rejectFinal = reject;
    });
    this.#final.catch(() => undefined);
    if (options.signal) this.#heed(options.signal);
  }

  /** The signal may be of any make, and throw what it likes. */
  #heed(signal: AbortSignal): void {
    try {
      if (!signal.aborted) return onAbort(signal, this.#onSignal);
    } catch (cause) {
      throw new InvalidArgumentError('options.signal cannot be listened to: it throws', { cause });
    }
    this.#onSignal();
  }

  // The caller's side.

  [Symbol.asyncIterator](): AsyncIterableIterator<GenerationDelta> {
    if (this.#consumer !== 'none') throw new InvalidArgumentError('a stream can be iterated only once');
    this.#consumer = 'iterating';
    if (this.#collecting) this.#queueWhatWasCollected();
    const iterator: AsyncIterableIterator<GenerationDelta, undefined> = {
      next: () => this.#queue.next(),
      return: () => this.#leave(),
      [Symbol.asyncIterator]: () => iterator,
    };
    return iterator;
  }

  final(): Promise<GenerationOutput> {
    if (this.#consumer === 'none') this.#collect();
    return this.#final;
  }

  text(): Promise<string> {
    const text = this.final().then((output) => output.outputs[0]!.text);
    text.catch(() => undefined);
    return text;
  }

  abort(): void {
    this.#abort('quietly');
  }

  // The engine's side.

  /** Whether the request is over. */
  get ended(): boolean {
    return this.#endedAt !== undefined;
  }

  /** Aborted when the request is over. Any number may listen. */
  get over(): AbortSignal {
    if (!this.#over) {
      this.#over = new AbortController();
      setMaxListeners(0, this.#over.signal);
      if (this.ended) this.#over.abort();
    }
    return this.#over.signal;
  }

  /** Tokens that came and that the consumer has not taken: a request with too many is paused. */
  get numUnacknowledged(): number {
    return this.#numUnacknowledged;
  }

  /** The engine has taken the request on. */
  begin(host: StreamHost, promptTokenIds: Int32Array): void {
    this.#host = host;
    this.#promptTokenIds = promptTokenIds;
  }

  /** A step has begun to work on the request. */
  markStarted(at: number): void {
    this.#startedAt ??= Math.max(at, this.options.createdAt);
  }

  /** Takes in what one sequence gained. */
  push(delta: SequenceDelta, at: number): void {
    const sequence = this.#sequences[delta.index];
    if (this.ended || !sequence || sequence.finishReason !== undefined) return;
    sequence.append(delta);
    if (delta.promptLogprobs) this.#promptLogprobs.append(delta.promptLogprobs);
    if (delta.error) this.#failure ??= delta.error;
    this.#numCachedTokens += delta.numCachedTokens ?? 0;
    if (delta.tokenIds.length > 0) this.#firstTokenAt ??= at;
    this.#numUnacknowledged += delta.tokenIds.length;
    this.#enqueue(delta);
    if (this.#sequences.every(({ finishReason }) => finishReason !== undefined)) {
      this.#finish(at, 'abort');
    }
  }

  /** Ends the request with an error, unless it is over. What was generated goes with the error. */
  fail(error: HeddleError): void {
    if (this.ended) return;
    const reason = error instanceof EngineClosedError ? 'abort' : 'error';
    this.#finish(performance.now(), reason, error);
  }

  // Consuming.

  /** Whether what comes now is for an iteration, present or future. */
  get #delivers(): boolean {
    if (this.#consumer === 'left' || this.#aborting === 'by signal') return false;
    return this.#consumer === 'iterating' || !this.#collecting;
  }

  #enqueue(delta: SequenceDelta): void {
    const numTokens = delta.tokenIds.length;
    const { outputKind } = this.options;
    const isLast = delta.finishReason !== undefined;
    const isShown = isLast || (outputKind !== 'final_only' && (numTokens > 0 || delta.text !== ''));
    if (!this.#delivers || !isShown) return this.#acknowledge(numTokens);
    if (outputKind === 'delta') return this.#queue.push({ index: delta.index, delta, numTokens });
    const pending = this.#queue.items.find((item) => item.index === delta.index);
    if (pending) pending.numTokens += numTokens;
    else this.#queue.push({ index: delta.index, delta: null, numTokens });
  }

  #take({ index, delta, numTokens }: Item): GenerationDelta {
    this.#acknowledge(numTokens);
    return delta === null ? this.#sequences[index]!.snapshot() : toGenerationDelta(delta);
  }

  #acknowledge(numTokens: number): void {
    this.#numUnacknowledged -= numTokens;
    if (numTokens > 0 && !this.ended) this.#host?.acknowledge(numTokens);
  }

  /** From now on nobody needs to iterate: what comes is taken at once, and kept for `final()`. */
  #collect(): void {
    this.#collecting = true;
    for (const item of this.#queue.clear()) this.#acknowledge(item.numTokens);
  }

  /** An iteration that begins after `final()` was called gets what came before in one item for each sequence. */
  #queueWhatWasCollected(): void {
    if (this.#aborting === 'by signal') return;
    for (const { index, finishReason, numTokens } of this.#sequences) {
      if (finishReason !== undefined || (numTokens > 0 && this.options.outputKind !== 'final_only')) {
        this.#queue.push({ index, delta: null, numTokens: 0 });
      }
    }
  }

  #leave(): Promise<IteratorResult<GenerationDelta, undefined>> {
    this.#consumer = 'left';
    this.#queue.end();
    for (const item of this.#queue.clear()) this.#acknowledge(item.numTokens);
    this.#abort('quietly');
    return Promise.resolve({ done: true, value: undefined });
  }

  // Ending.

  #abort(how: 'quietly' | 'by signal'): void {
    if (this.ended || this.#aborting !== 'no') return;
    this.#aborting = how;
    if (how === 'by signal') {
      for (const item of this.#queue.clear()) this.#acknowledge(item.numTokens);
    }
    // The last deltas of a request that the engine has are waited for: they carry what was generated.
    if (this.#host) this.#host.abort();
    else this.#finishAborted();
  }

  /** Ends a request that the engine never had: nobody else says how its sequences end. */
  #finishAborted(): void {
    for (const sequence of this.#sequences) {
      sequence.finish('abort');
      if (this.#delivers) this.#queue.push({ index: sequence.index, delta: null, numTokens: 0 });
    }
    this.#finish(performance.now(), 'abort');
  }

  /**
   * Settles everything, whatever throws on the way: nobody would come back to a stream that is half over.
   *
   * @param reason - How sequences end that are still open.
   * @param failure - Why the engine gives the request up, if it does.
   */
  #finish(at: number, reason: FinishReason, failure: HeddleError | null = null): void {
    this.#endedAt = at;
    for (const sequence of this.#sequences) sequence.finish(reason);
    const { output, error } = this.#conclude(failure);
    this.#queue.end(error);
    if (error) this.#rejectFinal(error);
    else this.#resolveFinal(output!);
    try {
      this.options.onEnd(this, output);
    } catch {
      // What goes wrong with the books is no matter of the caller, who has all by now.
    }
    this.#over?.abort();
  }

  /** Either is there, or both. */
  #conclude(failure: HeddleError | null): { output: GenerationOutput | null; error: HeddleError | null } {
    const { signal, site } = this.options;
    try {
      if (signal) offAbort(signal, this.#onSignal);
      const output = this.#output();
      if (failure) return { output, error: this.#host ? withOutput(failure, output) : failure };
      return { output, error: this.#endingError(output) };
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      const message = `the output of the request cannot be put together: ${reason}`;
      return { output: null, error: failure ?? withStack(new RequestFailedError(message, { cause }), site) };
    }
  }

  #endingError(output: GenerationOutput): HeddleError | null {
    const { signal, site } = this.options;
    if (this.#aborting === 'by signal') {
      return withStack(new RequestAbortedError(output, { cause: signal?.reason }), site);
    }
    return this.#failure ? withOutput(errorFromNative(this.#failure, site), output) : null;
  }

  #output(): GenerationOutput {
    const { logprobs: promptLogprobs } = this.#promptLogprobs.copyIfAny();
    return {
      requestId: this.requestId,
      promptTokenIds: this.#promptTokenIds,
      ...(promptLogprobs && { promptLogprobs }),
      outputs: this.#sequences.map((sequence) => sequence.completion()),
      usage: {
        promptTokens: this.#promptTokenIds.length,
        completionTokens: this.#sequences.reduce((sum, sequence) => sum + sequence.numTokens, 0),
        cachedTokens: this.#numCachedTokens,
      },
      timing: this.#timing(),
    };
  }

  /** What never happened counts as happening at the end. */
  #timing(): RequestTiming {
    const { createdAt } = this.options;
    const endedAt = this.#endedAt!;
    return {
      queueMs: (this.#startedAt ?? endedAt) - createdAt,
      timeToFirstTokenMs: (this.#firstTokenAt ?? endedAt) - createdAt,
      totalMs: endedAt - createdAt,
    };
  }
}
